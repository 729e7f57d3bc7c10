"""Arithmetic of colorization by hue and chroma: the two, and their histograms around a pixel.

Shape legend: B images, H, W pixels, N points, S bins of each histogram, V pixels of a window.

Source: Larsson, Maire, Shakhnarovich, "Learning Representations for Automatic Colorization", ECCV
2016, section 3.1. Deviations: a pixel's vote for its hue weighs as much as its chroma, so that grey
ones have none, and pixels of a window weigh alike wherever they lie.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def rgb_to_hue_chroma(rgb: Tensor) -> Tensor:
    """Hue and chroma of the colour hexagon.

    Args:
        rgb: (B, 3, H, W) float in [0, 1], R, G, B.

    Returns:
        (B, 2, H, W): hue in [0, 1), of red 0, green 1/3, blue 2/3, and of grey 0; chroma, the
        largest channel minus the smallest, in [0, 1].
    """
    red, green, blue = rgb.unbind(dim=1)
    largest = rgb.amax(dim=1)
    chroma = largest - rgb.amin(dim=1)
    divisor = chroma.clamp(min=torch.finfo(rgb.dtype).tiny)
    of_red = ((green - blue) / divisor) % 6
    of_green, of_blue = (blue - red) / divisor + 2, (red - green) / divisor + 4
    sixth = torch.where(largest == red, of_red, torch.where(largest == green, of_green, of_blue))
    return torch.stack([(sixth / 6) % 1, chroma], dim=1)


def window_histograms(
    hue_chroma: Tensor, valid: Tensor, points: Tensor, bins: int, window: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Histograms of hue and of chroma in a square around each point.

    Args:
        hue_chroma: (B, 2, H, W) from `rgb_to_hue_chroma`.
        valid: (B, 1, H, W), 0 on padding. Pixels there or outside the image have no vote.
        points: (N, 3) int64, (image, y, x) in pixels.
        bins: S.
        window: Side of the square in pixels, odd.

    Returns:
        Hues (N, S), votes weighed by chroma; chromas (N, S); mean chroma (N,). Rows sum to 1, or
        to 0 without a vote: hues of a grey window, and both of a window of padding.
    """
    reach = torch.arange(window, device=points.device) - window // 2
    offsets = torch.cartesian_prod(reach, reach)  # (V, 2)
    image = points[:, :1]
    y, x = (points[:, None, 1:] + offsets).unbind(dim=2)  # (N, V)
    height, width = hue_chroma.shape[2:]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    vote = valid[image, 0, y, x].to(hue_chroma.dtype) * inside  # (N, V)
    hue, chroma = hue_chroma[image, 0, y, x], hue_chroma[image, 1, y, x]
    hues = _histogram(hue, vote * chroma, bins)
    mean = (vote * chroma).sum(dim=1) / vote.sum(dim=1).clamp(min=1)
    return hues, _histogram(chroma, vote, bins), mean


def _histogram(values: Tensor, votes: Tensor, bins: int) -> Tensor:
    """Values (N, V) in [0, 1] and their votes -> (N, S), each row over its sum."""
    bin_of = (values * bins).long().clamp(max=bins - 1)
    counts = votes.new_zeros(len(values), bins).scatter_add_(1, bin_of, votes)
    return F.normalize(counts, p=1, dim=1)


def bin_centres(bins: int) -> Tensor:
    """(S,) values in [0, 1] in the middle of each bin."""
    return (torch.arange(bins) + 0.5) / bins
