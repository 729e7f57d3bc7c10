"""Count the values of label maps, in the files and after the user's transforms.

Shape legend: K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmengine.registry import DefaultScope

from mm_tuning_plugin.datasets.label_files import LabelFiles
from mm_tuning_plugin.datasets.label_values import as_integers
from mm_tuning_plugin.datasets.wrappers import load_sample, random_state
from mm_tuning_plugin.engine.config.derive_pipelines import tuning_pipeline, with_pipeline
from mm_tuning_plugin.engine.preflight.data import build_dataset
from mm_tuning_plugin.engine.preflight.data_files import LABELS, find_leaf, find_readers

MUCH_DROPPED = 0.15  # share of the pixels; data sets rarely leave more unlabelled
Counts = dict[int, int]
"""Label value -> number of pixels."""


class LabelCensus(NamedTuple):
    """The values of some label maps.

    Attributes:
        images: Number of images read.
        loaded: Values after the transforms that load and map labels, before any check.
        in_files: Values in the files, of the maps with ``reduce_zero_label``.
        reduced: Number of maps with ``reduce_zero_label``.
        jpegs: Number of files that are JPEGs.
    """

    images: int
    loaded: Counts
    in_files: Counts
    reduced: int
    jpegs: int = 0


def take_census(
    dataset: Mapping[str, Any],
    indices: Callable[[int], Iterable[int]],
    scope: str = 'mmseg',
    where: str = 'train_dataloader.dataset',
) -> LabelCensus:
    """Count the label values of some images of a data set.

    Args:
        dataset: The user's config of the data set.
        indices: Gives the indices of the images to read, from the number of images.
        scope: The config's ``default_scope``.
        where: Where the data set is in the config, for messages.

    Raises:
        UserError: The data set cannot be built, or a file is missing or cannot be read.
    """
    # the steps of stage one before it checks labels and samples nodes
    config = with_pipeline(dataset, lambda steps: tuning_pipeline(steps, (), {}, {})[:-3])
    loaded: Counts = {}
    in_files: Counts = {}
    jpegs = 0
    with random_state(0), DefaultScope.overwrite_default_scope(scope):
        built, items = build_dataset(config, where)
        chosen = sorted({int(index) for index in indices(len(built))})
        for index in chosen:
            path = str(items[index].get(LABELS))
            leaf, _ = find_leaf(built, index)
            files = LabelFiles(find_readers(leaf)[LABELS].backend_args)
            _add(loaded, load_sample(built, index)['gt_seg_map'], path)
            jpegs += files.is_jpeg(path)
            if items[index].get('reduce_zero_label'):
                _add(in_files, files.read(path), path)
    reduced = sum(bool(items[index].get('reduce_zero_label')) for index in chosen)
    return LabelCensus(len(chosen), loaded, in_files, reduced, jpegs)


def _add(counts: Counts, seg_map: np.ndarray | None, path: str) -> None:
    if seg_map is None:  # a format that only the user's own loader reads
        return
    values, numbers = np.unique(as_integers(seg_map, path), return_counts=True)
    for value, number in zip(values.tolist(), numbers.tolist()):
        counts[int(value)] = counts.get(int(value), 0) + number


def label_warnings(
    census: LabelCensus, class_names: Sequence[str], ignore_values: Iterable[int]
) -> list[str]:
    """Warnings about ``reduce_zero_label`` and the classes, from the values found.

    Args:
        census: From `take_census`.
        class_names: K names.
        ignore_values: Values that mean "ignore".

    Returns:
        Lines of the form 'thing: found; remedy'.
    """
    ignored = set(ignore_values) | {255}
    lines = _absorbed_classes(census, class_names, ignored) + _not_lossless(census)
    if census.reduced:
        lines += _against_reducing(census, class_names)
    if not census.jpegs:  # lossy compression changes values
        lines += _beyond_classes(census, class_names, ignored)
    return lines + _much_ignored(census, ignored)


def _not_lossless(census: LabelCensus) -> list[str]:
    if not census.jpegs:
        return []
    return [
        f'label maps: {census.jpegs} JPEG files found among {census.images}, which keep labels '
        'only nearly; write them as PNG, from the source anew, unless your loader rounds them'
    ]


def _absorbed_classes(
    census: LabelCensus, class_names: Sequence[str], ignored: set[int]
) -> list[str]:
    total = sum(census.loaded.values())
    return [
        f'ignore_index or seg_pad_val: {value} found, which is class {class_names[value]!r} '
        f'({_percent(census.loaded.get(value, 0), total)} of the pixels): none of it counts; '
        'set it to 255'
        for value in sorted(ignored)
        if 0 <= value < len(class_names)
    ]


def _against_reducing(census: LabelCensus, class_names: Sequence[str]) -> list[str]:
    """Warn if the files have 0..K-1 already: ``reduce_zero_label`` expects 1..K."""
    number = len(class_names)
    values = {value for value in census.in_files if 0 <= value < 255}
    share = census.in_files.get(0, 0) / max(1, sum(census.in_files.values()))
    below = bool(values) and max(values) < number  # the last class never occurs
    if 0 not in values or not (share > MUCH_DROPPED or (below and len(values) == number)):
        return []
    if not below:
        return [
            f'reduce_zero_label: True found, and 0 is {_percent(share, 1)} of the pixels, which '
            'are dropped; if 0 is a class of the files, set reduce_zero_label=False'
        ]
    return [
        f'reduce_zero_label: True found over label maps of values {shown_values(values)} for '
        f'{number} classes: 0 is dropped ({_percent(share, 1)} of the pixels), every label is '
        f'shifted by one and class {class_names[-1]!r} never occurs; set reduce_zero_label=False'
    ]


def _beyond_classes(
    census: LabelCensus, class_names: Sequence[str], ignored: set[int]
) -> list[str]:
    number = len(class_names)
    used = {value for value in census.loaded if value not in ignored}
    beyond = {value for value in used if not 0 <= value < number}
    if beyond == {number}:
        if 0 not in used:
            return [
                f'reduce_zero_label: label maps of values {shown_values(used)} found for {number} '
                'classes: all labels are shifted by one; set reduce_zero_label=True'
            ]
        return [
            f'label maps: values {shown_values(used)} found, one more than the {number} classes; '
            f'if 0 means unlabelled, set reduce_zero_label=True; if {number} does, add '
            f"dict(type='mm_tuning_plugin.MapLabels', label_map={{{number}: 255}}) behind "
            'LoadAnnotations; else num_classes and classes lack one'
        ]
    if beyond:
        return [
            f'label maps: values {shown_values(beyond)} found, which are none of the {number} '
            "classes; map them by dict(type='mm_tuning_plugin.MapLabels', label_map={VALUE: 255}) "
            'behind LoadAnnotations, or mend num_classes'
        ]
    return []


def _much_ignored(census: LabelCensus, ignored: set[int]) -> list[str]:
    """Warn if most pixels are ignored, or 255 is the second value of a binary mask."""
    total = sum(census.loaded.values())
    if census.loaded.get(255) and not census.reduced and set(census.loaded) <= {0, 255}:
        return [
            f'label maps: values 0 and 255 alone found: 255 ({_percent(census.loaded[255], total)} '
            "of the pixels) is ignored; if it is class 1, add dict(type='mm_tuning_plugin."
            "MapLabels', label_map={255: 1}) behind LoadAnnotations"
        ]
    lost = sum(count for value, count in census.loaded.items() if value in ignored)
    if 2 * lost > total:
        return [
            f'label maps: {_percent(lost, total)} of the pixels are ignored '
            f'({shown_values(ignored & set(census.loaded))}); if that is not meant, look at '
            'reduce_zero_label, ignore_index and the values of the files'
        ]
    return []


def shown_values(values: Iterable[int]) -> str:
    """Integers as ranges: {0, 1, 2, 7} -> '0 to 2, 7'."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    parts = [f'{run[0]} to {run[-1]}' if len(run) > 1 else f'{run[0]}' for run in runs]
    return ', '.join(parts[:5]) + (', ...' if len(parts) > 5 else '')


def _percent(part: float, whole: float) -> str:
    return f'{100 * part / max(whole, 1e-9):.3g} %'
