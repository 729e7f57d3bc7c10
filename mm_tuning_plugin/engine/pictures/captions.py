"""Order and captions of the pictures of stage one."""

from __future__ import annotations

import re
from pathlib import Path

from mm_tuning_plugin.engine.config.options import PICTURES

_PROJECTED = (
    'Nodes of node retrieval before tuning and after {} iterations, the same points in the same '
    'colours, {}. Classes that come apart are separated by tuning; recall@1 is the share of the '
    'queries whose nearest node of the training images has their class.'
)
CAPTIONS = {
    'mosaic': 'The batch that follows iteration {}: its images with the nodes drawn on them, below '
    'these nodes mixed and sorted by class.',
    'embedding': _PROJECTED.format('{}', 'by PCA'),
    'tsne': _PROJECTED.format('{}', 'by t-SNE, whose distances between groups mean little'),
    'gallery': 'Nodes of the validation images and the five nearest of the training images, before '
    'tuning and after {} iterations. One query a class, of up to 24, chosen by labels alone.',
    'similarity': 'Mean cosine between the nodes of each two classes, before tuning and after {} '
    'iterations. Classes apart show as a light diagonal on dark.',
}
"""By kind, with a place for the iteration."""


def captioned(folder: Path) -> list[tuple[Path, str]]:
    """List the pictures of a run as a reader wants them.

    Args:
        folder: ``tuning/pictures`` of a work_dir; it may lack.

    Returns:
        PNG files with their captions: kind by kind in the order of `PICTURES`, each by iteration.
        Files of other names come last, by name, which is their caption.
    """
    ranked = []
    for file in folder.glob('*.png'):
        found = re.fullmatch(r'([a-z]+)_(\d+)', file.stem)
        if found and found[1] in PICTURES:
            iteration = int(found[2])
            caption = f'{found[1].capitalize()}. {CAPTIONS[found[1]].format(iteration)}'
            ranked.append((PICTURES.index(found[1]), iteration, file.name, file, caption))
        else:
            other = file.stem.replace('_', ' ')
            ranked.append((len(PICTURES), 0, file.name, file, other))
    return [(file, caption) for *_, file, caption in sorted(ranked)]
