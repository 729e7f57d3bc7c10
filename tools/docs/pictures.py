"""Draw the pictures of the documentation from drawn scenes alone: ``make docs``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

IMAGES, SIDE = 3, 128


def main(folder: str) -> None:
    """Save the nodes of one batch, ``points.png`` and ``patches.png``, and ``overview.png``.

    Args:
        folder: Where to.
    """
    import torch
    from overview import draw_overview
    from PIL import Image

    from mm_tuning_plugin import visualization
    from mm_tuning_plugin.demo.dataset import CLASSES, PALETTE, draw_scene
    from mm_tuning_plugin.functional import sample_patches, sample_points

    draws = torch.Generator().manual_seed(3)
    scenes = [draw_scene(seed, SIDE) for seed in range(IMAGES)]
    maps = [torch.from_numpy(labels).long() for _, labels in scenes]
    kinds: dict[str, Callable] = {
        'points': lambda labels: sample_points(labels, 4, generator=draws),
        'patches': lambda labels: sample_patches(
            labels, 6, (24, 64), balance='class', generator=draws
        ),
    }
    pictures = {'overview': draw_overview()}
    for name, sample in kinds.items():
        nodes = [sample(labels) for labels in maps]
        picture = visualization.node_sheet(
            [image[..., ::-1] for image, _ in scenes],  # BGR
            [where.numpy() for where, _ in nodes],
            [labels.numpy() for _, labels in nodes],
            PALETTE,
            CLASSES,
            window=25,
            cell=240,
        )
        pictures[name] = picture
    for name, picture in pictures.items():
        # 256 colours: a third of the bytes
        small = Image.fromarray(picture).quantize(256)
        small.save(Path(folder) / f'{name}.png', optimize=True)


if __name__ == '__main__':
    main(sys.argv[1])
