"""Summarise a survey of nodes: a row for each class, totals, and warnings about settings.

Shape legend: K classes, N nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mm_tuning_plugin.inspection.node_survey import Survey
from mm_tuning_plugin.nodes.base import draws_background, more_nodes, node_kind, node_name

BACKGROUND_NAMES = ('background', 'bg', 'void', 'unlabelled', 'unlabeled', 'other', 'clutter')
MOSTLY = 0.5  # share of the pixels; a class above it is probably background
QUANTILES = (0.1, 0.5, 0.9)
_NAMES_SHOWN = 8


def class_rows(seen: Survey) -> list[dict[str, Any]]:
    """One row for each class.

    Returns:
        K rows: index and name; share of the pixels that are not ignored; number and share of its
        nodes; number of images with its pixels and with its nodes; medians over its nodes of
        purity, side and covered share (None without nodes; the last two are None for points).
    """
    pixels, counts = seen.pixels[:-1], seen.counts
    present = sum(image.pixels[:-1] > 0 for image in seen.images)
    drawn = sum(
        np.bincount(image.labels, minlength=len(counts)) > 0 for image in seen.images
    )  # (K,) images
    labels, figures = seen.labels, _figures(seen)
    rows = []
    for index, name in enumerate(seen.facts.class_names):
        medians = {key: _median(values[labels == index]) for key, values in figures.items()}
        rows.append(
            dict(
                index=index,
                name=name,
                pixel_share=_share(pixels[index], pixels.sum()),
                nodes=int(counts[index]),
                node_share=_share(counts[index], counts.sum()),
                images=int(present[index]),
                images_with_nodes=int(drawn[index]),
                purity=medians['purity'],
                side=medians.get('side'),
                covered=medians.get('covered'),
            )
        )
    return rows


def summary(seen: Survey) -> dict[str, Any]:
    """Figures over all classes: counts, and quantiles over the nodes."""
    facts = seen.facts
    background = facts.background_index
    return dict(
        node_kind=node_name(facts.options.nodes),
        dataset_images=seen.dataset_size,
        images=len(seen.images),
        images_without_nodes=sum(len(image.labels) == 0 for image in seen.images),
        nodes=len(seen.labels),
        classes=facts.num_classes,
        classes_with_nodes=int((seen.counts > 0).sum()),
        ignored_share=_share(seen.pixels[-1], seen.pixels.sum()),
        background=None if background is None else facts.class_names[background],
        quantiles={
            name: {f'{q:g}': _quantile(values, q) for q in QUANTILES}
            for name, values in _figures(seen).items()
        },
    )


def sampling_warnings(seen: Survey) -> list[str]:
    """Warnings about classes without nodes, images without nodes and the background class.

    Returns:
        Lines of the form 'thing: found; remedy'.
    """
    names, looked = seen.facts.class_names, f'{len(seen.images)} images'
    pixels, counts = seen.pixels[:-1], seen.counts
    lines = []
    absent = np.flatnonzero(pixels == 0)
    if len(absent):
        lines.append(
            f'classes: {len(absent)} of {len(names)} never occur in {looked} '
            f'({_list(names, absent)}); look at more with --images, or mend the names and order of '
            'classes, num_classes and reduce_zero_label'
        )
    missed = np.flatnonzero((pixels > 0) & (counts == 0))
    if len(missed):
        lines.append(
            f'sampling: {len(missed)} of {len(names)} classes occur but are never drawn in '
            f'{looked} ({_list(names, missed)}); {more_nodes(vars(seen.facts.options))}'
        )
    empty = sum(len(image.labels) == 0 for image in seen.images)
    if empty:
        lines.append(
            f'sampling: {empty} of {looked} give no node, all their pixels are ignored; leave '
            'them out of the data set, or mend their labels'
        )
    return lines + _background_warnings(seen)


def _figures(seen: Survey) -> dict[str, np.ndarray]:
    """Return the measures of each node (N,), by name."""
    names = ('purity', *node_kind(seen.facts.options.nodes).figures)
    return {name: seen.sides if name == 'side' else seen.joined(name) for name in names}


def _background_warnings(seen: Survey) -> list[str]:
    """Warnings about the background class, which only this package's patches treat specially."""
    facts, names = seen.facts, seen.facts.class_names
    if not draws_background(vars(facts.options)):
        return []
    shares = seen.pixels[:-1] / max(1, seen.pixels[:-1].sum())
    index, ratio = facts.background_index, facts.options.background_ratio
    if index is not None:
        if _looks_like_background(names[index]):
            return []
        return [
            f'background: class {names[index]!r} is treated as background and gets {ratio:.0%} of '
            f'the patches ({shares[index]:.1%} of the pixels); if it is a class like the others, '
            'set mix_and_match.background_index=None'
        ]
    named = [i for i, name in enumerate(names) if _looks_like_background(name)]
    if named:
        return [
            f'background: class {names[named[0]]!r} ({shares[named[0]]:.1%} of the pixels) is '
            'sampled as any other class; if it is background, set '
            f'mix_and_match.background_index={named[0]}'
        ]
    largest = int(shares.argmax())
    if shares[largest] > MOSTLY:
        return [
            f'background: class {names[largest]!r} covers {shares[largest]:.1%} of the pixels and '
            f'is no background; if it is, set mix_and_match.background_index={largest}; else '
            "consider balance='class'"
        ]
    return []


def _looks_like_background(name: str) -> bool:
    return name.lower().strip('_ ') in BACKGROUND_NAMES


def _list(names: Sequence[str], indices: np.ndarray) -> str:
    shown, more = ', '.join(names[i] for i in indices[:_NAMES_SHOWN]), len(indices) - _NAMES_SHOWN
    return f'{shown} and {more} more' if more > 0 else shown


def _share(part: float, whole: float) -> float | None:
    return round(float(part / whole), 6) if whole else None


def _median(values: np.ndarray) -> float | None:
    return _quantile(values, 0.5)


def _quantile(values: np.ndarray, q: float) -> float | None:
    """A quantile; None without values. NaN, the value of a box outside its image, is skipped."""
    known = values[~np.isnan(values)]
    return round(float(np.quantile(known, q)), 4) if len(known) else None
