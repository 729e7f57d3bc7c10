"""From the names that other projects give to a network's tensors to those of mmseg's backbones.

One module a family of networks, one small pure function a convention, all in the table `NAMINGS`.
Names that a convention does not know pass through unchanged, so it may be tried on any file: the
search (`fit`) keeps the one under which most parameters find their place.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from . import convnext, hf_vit, mit, mobilenet, mscan, resnet, stdc, swin, twins, vgg, vit
from .rules import Naming, Rename, Tensors


def same_names(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """OpenMMLab's own files, and torchvision's ResNets, whose names mmseg shares."""
    return dict(tensors)


NAMINGS: tuple[Naming, ...] = (
    Naming('same names', same_names, square=False),
    *vit.NAMINGS,
    *hf_vit.NAMINGS,
    *resnet.NAMINGS,
    *swin.NAMINGS,
    *mit.NAMINGS,
    *convnext.NAMINGS,
    *twins.NAMINGS,
    *mscan.NAMINGS,
    *vgg.NAMINGS,
    *mobilenet.NAMINGS,
    *stdc.NAMINGS,
)

__all__ = ['NAMINGS', 'Naming', 'Rename', 'Tensors']
