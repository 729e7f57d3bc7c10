"""From the names that other projects give to a network's tensors to those of mmseg's backbones.

One module a family of networks, one small pure function a convention, all in the table `NAMINGS`.
Names that a convention does not know pass through unchanged, so it may be tried on any file: the
search (`fit`) keeps the one under which most parameters find their place.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from . import (
    caffe,
    convnext,
    flattened,
    hf_vit,
    mit,
    mobilenet,
    mscan,
    resnet,
    stdc,
    swin,
    twins,
    vgg,
    vit,
)
from .rules import Naming, Rename, Tensors
from .transformers_own import own_namings


def same_names(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensors:
    """OpenMMLab's own files, and torchvision's ResNets, whose names mmseg shares."""
    return dict(tensors)


NAMINGS: tuple[Naming, ...] = (
    Naming('same names', same_names, square=False),
    *flattened.NAMINGS,
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
    *caffe.NAMINGS,
)

_registered: list[Naming] = []


def register_naming(naming: Naming) -> Naming:
    """Make the loader try a further convention, after those of `NAMINGS`.

    Call it in a module that the config names in ``custom_imports``. One of the same title is
    replaced, so that a module may be imported twice.

    Raises:
        ValueError: The package has a convention of that title.
    """
    if any(known.title == naming.title for known in NAMINGS):
        raise ValueError(f'naming {naming.title!r} found, expected a title that is not taken')
    _registered[:] = [known for known in _registered if known.title != naming.title] + [naming]
    return naming


def all_namings() -> tuple[Naming, ...]:
    """The package's conventions and the registered ones, in the order in which they are tried."""
    return (*NAMINGS, *_registered)


def namings_for(backbone: nn.Module) -> tuple[Naming, ...]:
    """All conventions, and those that a backbone's own class knows."""
    return (*all_namings(), *own_namings(backbone))


__all__ = [
    'NAMINGS',
    'Naming',
    'Rename',
    'Tensors',
    'all_namings',
    'namings_for',
    'register_naming',
]
