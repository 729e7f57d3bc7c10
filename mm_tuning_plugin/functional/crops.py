"""Crop and resize the patches of an image, all at once.

Shape legend: image (C, H, W), P boxes (y0, x0, y1, x1), patches of side S.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mm_tuning_plugin.functional.embeddings import as_precise

from ._checks import check_at_least, check_integers, describe


class _Taps(NamedTuple):
    """The two pixels that each output row (or column) blends. All (P, S, 2)."""

    pixel: Tensor  # int64, clamped into the image
    weight: Tensor  # float, 0 for a pixel outside the image


def crop_and_resize(
    image: Tensor, boxes: Tensor, output_size: int, *, fill: float | Sequence[float] = 0.0
) -> Tensor:
    """Crop boxes of an image and resize each to a square, bilinearly.

    Equals padding the image with `fill`, slicing and `cv2.resize` with INTER_LINEAR (pixel centres
    at +0.5, no antialiasing, the border of the *patch* replicated). The released code does the
    same, but uses the height instead of the width in one bound. This function is differentiable and
    runs on GPUs; in data-loading workers cv2 itself is faster.

    Args:
        image: (C, H, W) uint8 or any float.
        boxes: (P, 4) int64, half-open pixels, each at least one pixel high and wide; may lie
            partly or wholly outside the image.
        output_size: S, in pixels.
        fill: Value outside the image, one for all or one per channel, in the image's units.

    Returns:
        (P, C, S, S) float32 (float64 for a float64 image), differentiable with respect to a float
        image.

    Raises:
        ValueError: The image is not (C, H, W) with at least one pixel, the boxes are not integers
            (P, 4) or (not checked on a GPU) are empty, the size is below 1, or the fill does not
            match the channels.

    Examples:
        >>> image = torch.arange(4.0).reshape(1, 2, 2)
        >>> crop_and_resize(image, torch.tensor([[0, 1, 2, 3]]), 2, fill=9.0)
        tensor([[[[1., 9.],
                  [3., 9.]]]])
    """
    _check(image, boxes, output_size)
    source = as_precise(image) if image.is_floating_point() else image
    dtype = source.dtype if image.is_floating_point() else torch.float32
    channels, height, width = image.shape
    outside = _fill_values(fill, channels, image, dtype)  # (C, 1)
    rows = _taps(boxes[:, 0], boxes[:, 2], output_size, height, dtype)
    columns = _taps(boxes[:, 1], boxes[:, 3], output_size, width, dtype)
    flat = source.reshape(channels, -1)
    # (P, S, S): the weight of the image in each output pixel; the rest is fill
    inside = rows.weight.sum(2)[:, :, None] * columns.weight.sum(2)[:, None, :]
    patches = outside[:, :, None, None] * (1 - inside)  # (C, P, S, S)
    for i in range(2):
        for j in range(2):
            index = rows.pixel[:, :, None, i] * width + columns.pixel[:, None, :, j]
            weight = rows.weight[:, :, None, i] * columns.weight[:, None, :, j]
            patches = patches + flat[:, index] * weight  # (C, P, S, S)
    return patches.transpose(0, 1).contiguous()


def _taps(low: Tensor, high: Tensor, size: int, limit: int, dtype: torch.dtype) -> _Taps:
    """Pixels and weights along one axis, from `low` to `high` (P,), in `limit` pixels."""
    length = (high - low)[:, None]  # (P, 1)
    centres = torch.arange(size, device=low.device, dtype=torch.float64) + 0.5
    # float64: with 2,000 pixels, float32 has an error of 1e-4 of a pixel
    place = centres * (length.double() / size) - 0.5
    place = place.clamp_min(0)  # (P, S), in pixels of the patch
    first = torch.minimum(place.long(), length - 1)
    second = torch.minimum(first + 1, length - 1)
    share = (place - first).clamp_max(1)  # of the second
    index = torch.stack((first, second), dim=2) + low[:, None, None]  # (P, S, 2)
    in_image = (index >= 0) & (index < limit)
    weight = torch.stack((1 - share, share), dim=2) * in_image
    return _Taps(index.clamp(0, limit - 1), weight.to(dtype))


def _fill_values(
    fill: float | Sequence[float], channels: int, image: Tensor, dtype: torch.dtype
) -> Tensor:
    """The value outside the image for each channel, (C, 1)."""
    values = [float(fill)] * channels if isinstance(fill, (int, float)) else list(fill)
    if len(values) != channels:
        raise ValueError(
            f'fill must be one number or one for each of {channels} channels, got {describe(fill)}'
        )
    return torch.tensor(values, dtype=dtype, device=image.device)[:, None]


def _check(image: Tensor, boxes: Tensor, output_size: int) -> None:
    is_image = isinstance(image, Tensor) and image.ndim == 3 and image.numel() > 0
    if not (is_image and (image.is_floating_point() or image.dtype == torch.uint8)):
        raise ValueError(
            f'image must be a uint8 or float tensor of shape (C, H, W) with at least one pixel, '
            f'got {describe(image)}'
        )
    check_integers('boxes', boxes, '(P, 4)', 2)
    if boxes.shape[1] != 4:
        raise ValueError(f'boxes must be an integer tensor of shape (P, 4), got {describe(boxes)}')
    check_at_least('output_size', output_size, 1)
    if not boxes.is_cuda and bool((boxes[:, 2:] <= boxes[:, :2]).any()):
        empty = boxes[(boxes[:, 2:] <= boxes[:, :2]).any(1)][0].tolist()
        raise ValueError(f'boxes must be (y0, x0, y1, x1) with y0 < y1 and x0 < x1, got {empty}')
