"""C1: one uint8 image to its patches. Always on the CPU: it is work of the data-loading workers."""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
import torch
from reference import sampling as reference
from timing import Comparison, interleave

from mm_tuning_plugin.functional import crop_and_resize
from mm_tuning_plugin.functional.patches import spread_out

SIDE = 128
NOISE = 8


def image_like_a_photograph(rng: np.random.Generator, side: int = 512) -> np.ndarray:
    """Smooth structure at several scales and noise, square, BGR.

    The noise makes a JPEG of quality 90 as dense as one of a photograph, on which the time that
    decoding takes depends: 2.4 bits a pixel, the mean of CamVid's street scenes (480 x 360).
    """
    image = np.zeros((side, side, 3), dtype=np.float32)
    for cells in (4, 16, 64):
        grid = rng.normal(0, 60 / np.sqrt(cells), (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
    return (image + rng.normal(120, NOISE, image.shape)).clip(0, 255).astype(np.uint8)


def released(image: np.ndarray, boxes: torch.Tensor) -> torch.Tensor:
    """Widens the image to float, pads, slices, interpolates patch by patch."""
    planes = torch.from_numpy(image).permute(2, 0, 1).float()
    return reference.crop_and_resize(planes, boxes, SIDE)


def run(wanted: set[str], device: torch.device) -> list[Comparison]:
    """Runs C1 with the worker's path of the package; the tensor path is for information."""
    if 'C1' not in wanted:
        return []
    from mm_tuning_plugin.datasets.transforms import cut_patches

    rng = np.random.default_rng(0)
    image = image_like_a_photograph(rng)
    candidates, _ = reference.draw_boxes(rng.integers(0, 512, (2, 400)), 45, (64, 256), rng)
    boxes = torch.tensor(np.array(candidates)[spread_out(np.array(candidates), 9, 0.6)])
    worker = partial(cut_patches, image, boxes.numpy(), SIDE, (0, 0, 0))
    planes = torch.from_numpy(image).permute(2, 0, 1).contiguous()
    plain = released(image, boxes)
    cut = torch.from_numpy(worker()).permute(0, 3, 1, 2).float()
    assert (cut - plain).abs().max() <= 1, 'the worker path is off by more than one level'
    assert (crop_and_resize(planes, boxes, SIDE) - plain).abs().max() < 3e-3
    jpeg = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    figures = interleave(
        {
            'ours': worker,
            'reference': partial(released, image, boxes),
            'JPEG decode': partial(cv2.imdecode, jpeg, cv2.IMREAD_COLOR),
            'crop_and_resize (tensors)': partial(crop_and_resize, planes, boxes, SIDE),
        }
    )
    mine = figures['ours']['median']
    case = '512 x 512 uint8, 9 patches to 128 x 128'
    faster = {'reference': figures['reference']['median'] / mine}
    share = {'of the JPEG decode': mine / figures['JPEG decode']['median']}
    return [
        Comparison('C1', f'{case}, against the reference', 'ms', figures, faster, 6.0),
        Comparison('C1', f'{case}, share of the decode', 'ms', figures, share, 0.4, True),
    ]
