"""From a layer's blobs to the tensors that PyTorch names.

=============  ==========================================  =====================================
layer          blobs                                       tensors
=============  ==========================================  =====================================
Convolution    weight (O, I / groups, K, K), bias (O)      weight, bias: groups lie as PyTorch's
InnerProduct   weight (O, I), bias (O)                     weight, bias
BatchNorm      mean, variance, factor (1), and in some     running_mean, running_var: both over
               Caffes gamma, beta                          the factor; 0 where that is 0; weight,
                                                           bias
Scale          gamma, beta                                 weight, bias of the norm before it
BN             gamma, beta, mean, variance                 all four (Caffes with a fused layer)
=============  ==========================================  =====================================
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mm_tuning_plugin.errors import UserError

Blob = NDArray[np.float32]


class Layer(NamedTuple):
    """A layer of a file.

    Attributes:
        name: Its name.
        kind: Caffe's type; '' if the file does not have it.
        bottoms: Names of what it reads.
        tops: Names of what it gives.
        blobs: Its weights.
    """

    name: str
    kind: str
    bottoms: Sequence[str]
    tops: Sequence[str]
    blobs: Sequence[Blob]


def named_tensors(path: Path, layers: Sequence[Layer]) -> dict[str, Tensor]:
    """All tensors of a net, under ``LAYER.weight`` and so on; a slash in a name becomes a dot.

    Raises:
        UserError: No layer has weights.
    """
    tensors: dict[str, Tensor] = {}
    norms: dict[str, str] = {}  # what gives a blob -> the norm that did so last
    for layer in layers:
        kind = layer.kind or _guess(layer.blobs)
        name = layer.name.replace('/', '.')
        if kind == 'Scale' and layer.bottoms and layer.bottoms[0] in norms:
            name = norms[layer.bottoms[0]]
        for top in layer.tops:
            norms.pop(top, None)
            if kind == 'BatchNorm':
                norms[top] = name
        for part, blob in _parts(path, layer, kind).items():
            if f'{name}.{part}' in tensors:
                raise UserError(
                    str(path), f'two layers {name!r} found', 'expected names that differ'
                )
            tensors[f'{name}.{part}'] = torch.from_numpy(np.require(blob, requirements=('C', 'A')))
    if not tensors:
        raise UserError(
            str(path), f'{len(layers)} layers without weights found', 'expected some with weights'
        )
    return tensors


def _guess(blobs: Sequence[Blob]) -> str:
    """Find the type of a layer without one from its blobs."""
    sizes = [blob.size for blob in blobs]
    flat = all(_vector(blob).size == max(blob.shape, default=0) for blob in blobs)
    if flat and len(blobs) in (3, 5) and sizes[2] == 1 and len({*sizes[:2], *sizes[3:]}) == 1:
        return 'BatchNorm'
    if flat and len(blobs) == 4 and len(set(sizes)) == 1:
        return 'BN'
    if flat and len(blobs) == 2 and sizes[0] == sizes[1]:
        return 'Scale'
    return 'Convolution'


def _parts(path: Path, layer: Layer, kind: str) -> dict[str, Blob]:
    blobs = layer.blobs
    if not blobs:
        return {}
    if kind == 'BatchNorm':
        if len(blobs) not in (3, 5):
            raise UserError(
                str(path),
                f'BatchNorm {layer.name!r} with {len(blobs)} blobs found',
                'expected mean, variance and factor, or these with gamma and beta',
            )
        factor = float(_vector(blobs[2])[0]) if blobs[2].size else 0.0
        share = np.float32(0.0 if factor == 0 else 1.0 / factor)
        affine = {name: _vector(blob) for name, blob in zip(('weight', 'bias'), blobs[3:])}
        return {
            'running_mean': _vector(blobs[0]) * share,
            'running_var': _vector(blobs[1]) * share,
            **affine,
        }
    if kind == 'BN' and len(blobs) >= 4:
        names = ('weight', 'bias', 'running_mean', 'running_var')
        return {name: _vector(blob) for name, blob in zip(names, blobs)}
    if kind == 'Scale':
        return {name: _vector(blob) for name, blob in zip(('weight', 'bias'), blobs)}
    weight = blobs[0]
    if weight.ndim == 4 and weight.shape[:2] == (1, 1) and kind == 'InnerProduct':
        weight = weight.reshape(weight.shape[2:])  # old files pad every shape to four numbers
    parts = {'weight': weight}
    if len(blobs) > 1:
        parts['bias'] = _vector(blobs[1])
    return parts


def _vector(blob: Blob) -> Blob:
    return blob.reshape(-1)
