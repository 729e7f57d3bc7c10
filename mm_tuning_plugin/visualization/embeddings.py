"""The same nodes' embeddings before and after tuning, side by side on a plane.

Shape legend: N nodes, D numbers of an embedding, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mm_tuning_plugin.errors import require_extra

from .canvas import FAINT, PAPER, Canvas, look
from .checks import as_labels, as_names, as_size, describe, same_length
from .legend import Entry, draw_legend, plan_legend
from .palette import as_palette

_PANEL = 520  # side of a panel, pixels
_MARGIN = 14  # around the page and between the panels, pixels
_HEADER = 52  # pixels
_SMALL = 3  # a panel whose points reach this many times less far than the other's is enlarged
_MARKERS = 'osD^vPX*'  # the first eight classes are circles, the next eight squares, ...


class _Panel(NamedTuple):
    """One map: places (N, 2), half of the panel's side in their unit, and what stands above."""

    places: np.ndarray
    reach: float
    title: str
    score: str
    note: str


def embedding_map(
    before: np.ndarray,
    after: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    palette: np.ndarray | Sequence[Sequence[int]],
    *,
    method: str = 'pca',
    seed: int = 0,
    max_points: int = 2000,
    titles: tuple[str, str] = ('before tuning', 'after tuning'),
    scores: tuple[float, float] | None = None,
    score_name: str = 'recall@1',
) -> np.ndarray:
    """Shows embeddings before and after as two maps of the same points in the same colours.

    Each panel is projected by itself; the right one is then turned or mirrored to lie as near to
    the left one as it can, which changes no distance. All axes have one scale, so that what spreads
    or closes up is seen. A panel that would be less than a third as wide as the other is enlarged
    by a whole number, and says so.

    Args:
        before: (N, D) finite numbers.
        after: (N, D') finite numbers, of the same nodes in the same order.
        labels: (N,) integers in 0..K-1.
        class_names: K names.
        palette: (K, 3) RGB in 0..255.
        method: 'pca', or 't-sne' also written 'tsne', which takes up to half a minute a
            panel. Fewer than 5 points are always shown by PCA.
        seed: Of t-SNE, of PCA's approximation for many numbers, and of the drawing order.
        max_points: More are thinned out evenly within each class, the same at every call.
        titles: Of the two panels.
        scores: A number for each panel, shown as ``recall@1 0.612``.
        score_name: What ``scores`` is.

    Returns:
        (H, W, 3) uint8 RGB. Without points two empty panels; embeddings that are all the same, or
        a single one, lie in the middle of theirs.

    Raises:
        ValueError: if an argument has another shape, type, range or number of entries.
    """
    names = as_names(class_names)
    colours = as_palette(palette, len(names))
    before, after = _as_embeddings(before, 'before'), _as_embeddings(after, 'after')
    if len(before) != len(after):
        raise ValueError(
            f'after: expected the {len(before)} nodes of before, got {describe(after)}'
        )
    labels = as_labels(labels, len(names), 'labels', count=len(before))
    if method not in ('pca', 'tsne', 't-sne'):
        raise ValueError(f"method: expected 'pca' or 'tsne', got {method!r}")
    same_length('titles', titles, 2, 'panels')
    if scores is not None:
        same_length('scores', scores, 2, 'panels')
    kept = thin_out(labels, as_size(max_points, 'max_points'))
    order = np.random.default_rng(seed).permutation(len(kept))
    shown = kept[order]
    (left, how_left), (right, how_right) = (
        _project(embeddings[kept], method, seed) for embeddings in (before, after)
    )
    maps, panels = (left, _turned(right, left)), []
    for index, (places, how) in enumerate(zip(maps, (how_left, how_right))):
        reach, times = _scale(maps, index)
        score = '' if scores is None else f'{score_name} {scores[index]:.3f}'
        note = how + (f', enlarged {times} times' if times > 1 else '')
        panels.append(_Panel(places[order], reach, titles[index], score, note))
    total = f'{len(shown)} of {len(labels)} nodes' if len(shown) < len(labels) else ''
    return _page(panels, labels[shown], colours, names, total)


def thin_out(labels: np.ndarray, max_points: int) -> np.ndarray:
    """Chooses points evenly within each class, so that the classes' shares are kept.

    Classes of fewer than about N / M points may lose all of theirs.

    Args:
        labels: (N,) integers.
        max_points: M.

    Returns:
        (min(N, M),) int64, ascending indices; no random numbers are used.
    """
    if len(labels) <= max_points:
        return np.arange(len(labels))
    by_class = np.argsort(labels, kind='stable')
    steps = (np.arange(max_points) + 0.5) * len(labels) / max_points
    return np.sort(by_class[steps.astype(np.int64)])


def _as_embeddings(embeddings: np.ndarray, name: str) -> np.ndarray:
    array = np.asarray(embeddings)
    if array.size == 0 and array.shape[:1] == (0,):
        return np.zeros((0, 1))
    numbers = np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)
    if array.ndim != 2 or array.size == 0 or not numbers:
        raise ValueError(f'{name}: expected numbers of shape (N, D), got {describe(array)}')
    array = array.astype(np.float64)
    wrong = int((~np.isfinite(array)).any(axis=1).sum())
    if wrong:
        raise ValueError(f'{name}: expected finite numbers, got NaN or infinity in {wrong} rows')
    return array


def _project(embeddings: np.ndarray, method: str, seed: int) -> tuple[np.ndarray, str]:
    """Projects (N, D) to (N, 2), and says how."""
    count, width = embeddings.shape
    spread = embeddings - embeddings[:1]
    if count < 2 or not np.abs(spread).max() > 1e-12 * max(1.0, np.abs(embeddings).max()):
        note = 'all embeddings are the same' if count > 1 else ''
        return np.zeros((count, 2)), note
    if method != 'pca' and count >= 5:
        return _tsne(embeddings, seed), 't-SNE'
    require_extra('report', 'sklearn')
    from sklearn.decomposition import PCA

    solver = 'randomized' if min(count, width) > 300 else 'full'
    axes = min(2, count, width)
    model = PCA(n_components=axes, svd_solver=solver, random_state=seed)
    places = np.zeros((count, 2))
    places[:, :axes] = model.fit_transform(embeddings)
    share = 100 * float(model.explained_variance_ratio_.sum())
    return places, f'PCA, {share:.0f} % of the variance'


def _tsne(embeddings: np.ndarray, seed: int) -> np.ndarray:
    """Places (N, D) by t-SNE, (N, 2), on one thread: the order in which threads end would show."""
    require_extra('report', 'sklearn')
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    count, width = embeddings.shape
    model = TSNE(
        perplexity=min(30.0, (count - 1) / 3),
        init='pca' if width >= 2 else 'random',
        learning_rate='auto',
        method='exact' if count <= 200 else 'barnes_hut',
        random_state=seed,
    )
    with threadpool_limits(limits=1):
        return model.fit_transform(embeddings.astype(np.float32)).astype(np.float64)


def _turned(places: np.ndarray, towards: np.ndarray) -> np.ndarray:
    """Turns or mirrors places (N, 2) to lie nearest to others of the same nodes (Procrustes)."""
    if len(places) < 2:
        return places
    centred, others = places - places.mean(axis=0), towards - towards.mean(axis=0)
    left, _, right = np.linalg.svd(centred.T @ others)
    return centred @ (left @ right)


def _scale(maps: Sequence[np.ndarray], index: int) -> tuple[float, int]:
    """Chooses the scale of one of several maps (N, 2).

    Returns:
        Half of its panel's side, in the unit of its places, and how many times it is enlarged.
    """
    reaches = [float(np.ptp(m, axis=0).max()) / 2 * 1.06 if len(m) else 0.0 for m in maps]
    shared, own = max(*reaches, 1e-9), reaches[index]
    times = int(shared / own) if 0 < own * _SMALL <= shared else 1
    return shared / times, times


def _page(
    panels: list[_Panel], labels: np.ndarray, colours: np.ndarray, names: list[str], total: str
) -> np.ndarray:
    """Sets two panels side by side over a legend of the classes, the most frequent first."""
    present, counts = np.unique(labels, return_counts=True)
    ranked = present[np.argsort(-counts, kind='stable')]
    entries = [Entry(names[c] or f'class {c}', colours[c], _marker(c), int(c)) for c in ranked]
    width = 2 * _PANEL + 3 * _MARGIN
    legend = plan_legend(entries, width - 2 * _MARGIN, max_rows=20)
    bottom = _HEADER + _PANEL + _MARGIN
    canvas = Canvas(bottom + legend.height + (22 if total else 0) + _MARGIN, width)
    for index, panel in enumerate(panels):
        left = _MARGIN + index * (_PANEL + _MARGIN)
        canvas.text(18, left, panel.title, size=16, bold=True, max_width=_PANEL - 190)
        canvas.text(18, left + _PANEL, panel.score, size=16, align='right', max_width=180)
        canvas.text(39, left, panel.note or ' ', size=12, colour=FAINT, max_width=_PANEL)
        canvas.fill(_HEADER, left, _PANEL, _PANEL, PAPER)
        canvas.fill(_HEADER + 1, left + 1, _PANEL - 2, _PANEL - 2, (250, 250, 250))
        _scatter(canvas, _HEADER, left, panel, labels, colours)
    draw_legend(canvas, legend, bottom, _MARGIN)
    if total:
        middle = bottom + legend.height + 11
        canvas.text(middle, _MARGIN, total, size=12, colour=FAINT)
    return canvas.render()


def _scatter(
    canvas: Canvas,
    top: int,
    left: int,
    panel: _Panel,
    labels: np.ndarray,
    colours: np.ndarray,
) -> None:
    """Draws a panel's points, their extent in its middle."""
    axes, places, reach = canvas.axes(top, left, _PANEL, _PANEL), panel.places, panel.reach
    middle = (places.min(0) + places.max(0)) / 2 if len(places) else np.zeros(2)
    axes.set_xlim(middle[0] - reach, middle[0] + reach)
    axes.set_ylim(middle[1] - reach, middle[1] + reach)
    size = float(np.clip(220 / np.sqrt(max(len(places), 1)), 5, 11))
    markers = np.array([_marker(label) for label in labels])
    for part in np.array_split(np.arange(len(places)), 6):  # so that no marker covers all others
        for marker in _MARKERS:
            chosen = part[markers[part] == marker]
            if not len(chosen):
                continue
            style = look(marker, size)
            axes.scatter(
                places[chosen, 0],
                places[chosen, 1],
                s=style['markersize'] ** 2,
                marker=marker,
                c=colours[labels[chosen]] / 255,
                linewidths=style['markeredgewidth'],
                edgecolors=[style['markeredgecolor']],
            )


def _marker(label: int) -> str:
    return _MARKERS[label // 8 % len(_MARKERS)]
