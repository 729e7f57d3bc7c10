"""The same nodes' embeddings before and after tuning, side by side on a plane.

Shape legend: N nodes, D numbers of an embedding, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mm_tuning_plugin.extras import need_extra

from .checks import as_labels, as_size, require, same_length
from .drawing import Entry, draw_legend, drawing, marker_look, pixel_axes, stack, write
from .images import FAINT, PAPER, blank
from .palette import as_classes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANEL = 520  # side of a panel, pixels
_MARGIN = 14  # around the page and between the panels, pixels
_HEADER = 52  # pixels
_SMALL = 3  # a panel whose points reach this many times less far than the other's is enlarged
_GROUND = (250, 250, 250)  # of a panel
_MARKERS = 'osD^vPX*'  # the first eight classes are circles, the next eight squares, ...


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

    Each panel is projected separately. The right one is then rotated or mirrored to be as near to
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
    names, colours = as_classes(class_names, palette)
    before, after = _as_embeddings(before, 'before'), _as_embeddings(after, 'after')
    require(len(before) == len(after), 'after', f'the {len(before)} nodes of before', after)
    labels = as_labels(labels, len(names), 'labels', (len(before),))
    require(method in ('pca', 'tsne', 't-sne'), 'method', "'pca' or 'tsne'", repr(method))
    same_length('titles', titles, 2, 'panels')
    if scores is not None:
        same_length('scores', scores, 2, 'panels')
    kept = thin_out(labels, as_size(max_points, 'max_points'))
    order = np.random.default_rng(seed).permutation(len(kept))
    shown = kept[order]
    (left, how_left), (right, how_right) = (
        _project(embeddings[kept], method, seed) for embeddings in (before, after)
    )
    maps = left, _turned(right, left)
    page = blank(_HEADER + _PANEL, 2 * _PANEL + 3 * _MARGIN)
    with drawing(page) as figure:
        axes = pixel_axes(figure)
        for index, how in enumerate((how_left, how_right)):
            x = _MARGIN + index * (_PANEL + _MARGIN)
            reach, times = _scale(maps, index)
            note = how + (f', enlarged {times} times' if times > 1 else '')
            score = '' if scores is None else f'{score_name} {scores[index]:.3f}'
            write(figure, x, 18, titles[index], 16, bold=True, room=_PANEL - 190)
            write(figure, x + _PANEL, 18, score, 16, ha='right', room=180)
            write(figure, x, 39, note, 12, colour=FAINT, room=_PANEL)
            page[_HEADER:, x : x + _PANEL] = PAPER
            page[_HEADER + 1 : -1, x + 1 : x + _PANEL - 1] = _GROUND
            places = _on_page(maps[index][order], reach)
            _scatter(axes, places + np.array((x, _HEADER)), labels[shown], colours)
    parts = [page, _legend(labels[shown], colours, names, page.shape[1])]
    if len(shown) < len(labels):
        parts.append(blank(22, page.shape[1]))
        with drawing(parts[-1]) as figure:
            line = f'{len(shown)} of {len(labels)} nodes'
            write(figure, _MARGIN, 5, line, 12, colour=FAINT)
    return stack(*parts)


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
    numbers = array.ndim == 2 and array.size > 0 and array.dtype.kind in 'fiu'
    require(numbers, name, 'numbers of shape (N, D)', array)
    array = array.astype(np.float64)
    wrong = int((~np.isfinite(array)).any(axis=1).sum())
    require(not wrong, name, 'finite numbers', f'NaN or infinity in {wrong} rows')
    return array


def _project(embeddings: np.ndarray, method: str, seed: int) -> tuple[np.ndarray, str]:
    """Projects (N, D) to (N, 2), and returns how."""
    count, width = embeddings.shape
    spread = embeddings - embeddings[:1]
    if count < 2 or not np.abs(spread).max() > 1e-12 * max(1.0, np.abs(embeddings).max()):
        note = 'all embeddings are the same' if count > 1 else ''
        return np.zeros((count, 2)), note
    if method != 'pca' and count >= 5:
        return _tsne(embeddings, seed), 't-SNE'
    need_extra('report')
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
    """Rotates or mirrors places (N, 2) to be nearest to others of the same nodes (Procrustes)."""
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


def _on_page(places: np.ndarray, reach: float) -> np.ndarray:
    """Maps places (N, 2) into a panel, their extent in its middle; (N, 2), x and y in pixels."""
    middle = (places.min(0) + places.max(0)) / 2 if len(places) else 0.0
    return _PANEL / 2 * (1 + (places - middle) / reach * (1, -1))


def _scatter(axes: Axes, places: np.ndarray, labels: np.ndarray, colours: np.ndarray) -> None:
    """Draws points (N, 2), given in pixels."""
    size = float(np.clip(220 / np.sqrt(max(len(places), 1)), 5, 11))
    markers = np.array([_marker(label) for label in labels])
    for part in np.array_split(np.arange(len(places)), 6):  # so that no marker covers all others
        for marker in _MARKERS:
            chosen = part[markers[part] == marker]
            if len(chosen):
                look = marker_look(marker, size)
                axes.scatter(*places[chosen].T, c=colours[labels[chosen]] / 255, **look)


def _legend(labels: np.ndarray, colours: np.ndarray, names: list[str], width: int) -> np.ndarray:
    """Lists the classes shown, the most frequent first where not all have a place; (H, W, 3)."""
    present, counts = np.unique(labels, return_counts=True)
    entries = [
        Entry(c, names[c], colours[c], _marker(c))
        for c in present[np.argsort(-counts, kind='stable')].tolist()
    ]
    return draw_legend(entries, width, margin=_MARGIN, max_rows=20)


def _marker(label: int) -> str:
    return _MARKERS[label // 8 % len(_MARKERS)]
