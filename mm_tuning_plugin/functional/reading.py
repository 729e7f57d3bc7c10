"""Read feature maps at points of the image.

Shape legend: M images, N points, C channels, (H, W) image size, (h, w) map size.
"""

from __future__ import annotations

import torch
from torch import Tensor


def read_at_points(features: Tensor, points: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Read a feature map bilinearly at pixels of the image, at half-pixel centres.

    The values equal those of resizing the map to the image (bilinear, ``align_corners=False``) and
    indexing the pixels, but the large map is never computed. Positions beyond the centres of the
    border cells get the value of the border, as in resizing.

    Args:
        features: (M, C, h, w), floating point.
        points: (N, 3) int64, (image, y, x); y and x are pixel indices, whose centres are at +0.5.
        image_size: (H, W) in pixels.

    Returns:
        (N, C), of the features' dtype; differentiable with respect to `features`.

    Raises:
        ValueError: An argument has a wrong number of dimensions.

    Examples:
        >>> features = torch.tensor([[[[0.0, 1.0]]]])  # one row of two cells
        >>> read_at_points(features, torch.tensor([[0, 0, 0], [0, 0, 1]]), (1, 4))
        tensor([[0.0000],
                [0.2500]])
    """
    if features.ndim != 4:
        raise ValueError(f'features: expected (M, C, h, w), got shape {tuple(features.shape)}')
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f'points: expected (N, 3), got shape {tuple(points.shape)}')
    height, width = features.shape[-2:]
    image, y, x = points.unbind(1)
    if (height, width) == tuple(image_size):  # every pixel has its own cell
        return _cells(features, image, y, x)
    y0, y1, wy = _neighbours(y, image_size[0], height, features.dtype)
    x0, x1, wx = _neighbours(x, image_size[1], width, features.dtype)
    corners = _cells(features, image, torch.stack([y0, y0, y1, y1]), torch.stack([x0, x1, x0, x1]))
    upper_left, upper_right, lower_left, lower_right = corners  # (N, C) each
    upper = torch.lerp(upper_left, upper_right, wx)
    lower = torch.lerp(lower_left, lower_right, wx)
    return torch.lerp(upper, lower, wy)


def _cells(features: Tensor, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Cells of a map; image (N,), row and column (..., N) -> (..., N, C).

    Contiguous channels are read several times faster. A map that is not much larger than what is
    read of it is therefore copied to that layout first. A much larger map is not copied, so memory
    grows with the number of points, not with the map.
    """
    images, channels, height, width = features.shape
    in_rows = features.is_contiguous(memory_format=torch.channels_last)
    if not in_rows and images * height * width > 2 * row.numel():
        return features[image, :, row, column]
    rows = features.permute(0, 2, 3, 1).reshape(-1, channels)  # (M * h * w, C)
    return rows[(image * height + row) * width + column]


def _neighbours(
    pixel: Tensor, image_side: int, map_side: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """The two cells around each pixel's centre and the weight of the second, (N,), (N,), (N, 1)."""
    position = (pixel.double() + 0.5) * (map_side / image_side) - 0.5
    position = position.clamp(0, map_side - 1)
    first = position.floor().long()
    second = (first + 1).clamp(max=map_side - 1)
    return first, second, (position - first).to(dtype)[:, None]
