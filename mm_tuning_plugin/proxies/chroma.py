"""Arithmetic of colorization: grey, Lab, and the grid that turns chroma into classes.

Shape legend: B images, H, W pixels, h, w cells of a feature map, G cells a side of the grid,
Q classes of chroma.

Source: Zhang, Isola, Efros, "Colorful Image Colorization", ECCV 2016, section 2: classes are cells
of a grid on the ab plane of CIE Lab, and rare ones weigh more. Deviations: the cells are 20 units
wide rather than 10, a target is one class rather than five soft ones, and the weights follow a
running estimate of how frequent the classes are rather than a pass over a data set.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mm_tuning_plugin.errors import UserError

IGNORE_CLASS = -1
AB_LIMIT = 110.0
"""All of sRGB lies within +-110 on both axes of chroma."""

GREY_WEIGHTS = (0.299, 0.587, 0.114)
RGB_TO_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
WHITE_D65 = (0.950456, 1.0, 1.088754)


def rgb_to_grey(rgb: Tensor) -> Tensor:
    """The BT.601 luma, as OpenCV's grey is.

    Args:
        rgb: (B, 3, H, W) float, R, G, B.

    Returns:
        (B, 1, H, W), in the unit of the input.
    """
    weights = rgb.new_tensor(GREY_WEIGHTS)[:, None, None]
    return (rgb * weights).sum(dim=1, keepdim=True)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """SRGB to CIE Lab under D65.

    Args:
        rgb: (B, 3, H, W) float in [0, 1], R, G, B, gamma-encoded as images on disk are.

    Returns:
        (B, 3, H, W): L in [0, 100], a and b within +-110. OpenCV's float Lab
        interpolates in tables and is off by up to 0.5.
    """
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055).clamp(min=0) ** 2.4, rgb / 12.92)
    matrix = rgb.new_tensor(RGB_TO_XYZ) / rgb.new_tensor(WHITE_D65)[:, None]
    xyz = torch.einsum('ij,bjhw->bihw', matrix, linear)
    root = torch.where(xyz > 0.008856, xyz.clamp(min=1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = root.unbind(dim=1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _grid_cell(chroma: Tensor, step: float) -> Tensor:
    """(B, 2, h, w) chroma -> (B, h, w) int64: row-major cell of the whole grid."""
    side = _grid_side(step)
    cell = torch.floor((chroma + 0.5 * side * step) / step).long().clamp(0, side - 1)
    return cell[:, 0] * side + cell[:, 1]


def _grid_side(step: float) -> int:
    """G: odd, so that grey is the middle of a cell and not the corner of four."""
    return 2 * int(-(-(AB_LIMIT - 0.5 * step) // step)) + 1


def chroma_classes(step: float) -> tuple[Tensor, Tensor]:
    """Which cells of the ab grid sRGB reaches, and the class that each cell has.

    Args:
        step: Width of a cell in units of Lab, in [5, 60].

    Returns:
        ``lookup`` (G * G,) int64: the class of a cell; a cell that sRGB does not reach has the
        class of the nearest that it does. ``centres`` (Q, 2) float32: a and b of each class.

    Raises:
        UserError: If ``step`` is out of range.
    """
    if not 5 <= step <= 60:
        raise UserError('step', f'{step} found', 'expected a width in [5, 60] units of Lab')
    axis = torch.linspace(0, 1, 33)
    cube = torch.stack(torch.meshgrid(axis, axis, axis, indexing='ij')).reshape(1, 3, -1, 1)
    reached = _grid_cell(rgb_to_lab(cube)[:, 1:], step).unique()  # (Q,)
    side = _grid_side(step)
    cells = torch.arange(side * side)
    centre = torch.stack([cells // side, cells % side], dim=1) - (side - 1) / 2  # (G * G, 2)
    lookup = torch.cdist(centre * step, centre[reached] * step).argmin(dim=1)
    return lookup, centre[reached] * step


def chroma_targets(
    chroma: Tensor, valid: Tensor, lookup: Tensor, step: float, size: tuple[int, int]
) -> Tensor:
    """The class of the mean chroma of every cell of a feature map.

    Args:
        chroma: (B, 2, H, W) a and b of every pixel.
        valid: (B, 1, H, W) bool or float, false on padding.
        lookup: (G * G,) from ``chroma_classes``.
        step: Width of a cell of the grid.
        size: (h, w) of the feature map.

    Returns:
        (B, h, w) int64 in [0, Q), or ``IGNORE_CLASS`` where a cell reaches into the padding.
    """
    mean = F.interpolate(chroma, size=size, mode='area')
    target = lookup[_grid_cell(mean, step)]
    whole = F.interpolate(valid.to(chroma.dtype), size=size, mode='area')[:, 0] > 0.999
    return torch.where(whole, target, torch.full_like(target, IGNORE_CLASS))


def class_weights(frequency: Tensor, uniform: float) -> Tensor:
    """Weights that let rare classes count more.

    Args:
        frequency: (Q,) non-negative, sums to 1.
        uniform: Share of the uniform distribution that is mixed in, in (0, 1]: 1 gives equal
            weights, towards 0 a class counts inversely to its frequency.

    Returns:
        (Q,) weights whose mean over the data is 1.

    Raises:
        ValueError: If ``uniform`` is out of range.
    """
    if not 0 < uniform <= 1:
        raise ValueError(f'uniform: expected a share in (0, 1], got {uniform}')
    weights = 1.0 / ((1.0 - uniform) * frequency + uniform / frequency.numel())
    return weights / (frequency * weights).sum()


def stack_padded(images: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Stacks images of unequal sizes, padded with zeros below and to the right.

    Args:
        images: Tensors (3, H_i, W_i).

    Returns:
        (B, 3, H, W) float32, and (B, 1, H, W) float32: 1 on the image, 0 on padding.

    Raises:
        ValueError: If there are no images.
        UserError: If one is not of three channels.
    """
    if not images:
        raise ValueError('images: expected at least one, got none')
    for image in images:
        if image.dim() != 3 or image.shape[0] != 3:
            raise UserError(
                'inputs', f'an image of shape {tuple(image.shape)} found', 'expected (3, H, W)'
            )
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    stacked = images[0].new_zeros((len(images), 3, height, width), dtype=torch.float32)
    valid = torch.zeros_like(stacked[:, :1])
    for index, image in enumerate(images):
        stacked[index, :, : image.shape[1], : image.shape[2]] = image
        valid[index, :, : image.shape[1], : image.shape[2]] = 1
    return stacked, valid
