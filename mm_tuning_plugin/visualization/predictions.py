"""Images, ground truth and predictions of several models, with the errors highlighted.

Shape legend: H, W pixels; K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .checks import as_labels, as_rgb, as_size, require, same_length
from .drawing import Entry, draw_legend, drawing, stack, text_width, write
from .images import FAINT, INK, blank, hatch, resize
from .palette import as_classes

_MARGIN = 12  # around the page, pixels
_GAP = 8  # between columns, pixels
_HEADER = 48  # pixels
_CAPTION = 22  # under each row, pixels
_FADE = 0.25  # how much of its colour a right pixel keeps


def prediction_sheet(
    images: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    predictions: Mapping[str, Sequence[np.ndarray]],
    palette: np.ndarray | Sequence[Sequence[int]],
    class_names: Sequence[str],
    *,
    ignore_index: int = 255,
    scores: Mapping[str, float] | None = None,
    cell: int = 320,
) -> np.ndarray:
    """Shows a row for each image: the image, its truth, and each model's prediction.

    Where a prediction is right its colour is faded, where it is wrong it is full and outlined;
    pixels without truth are grey and hatched. Under each prediction stands which share of the
    other pixels is wrong.

    Args:
        images: (H, W, 3) uint8 RGB each, of any sizes, at least one.
        truth: (H, W) integers for each image, 0..K-1 or ``ignore_index``.
        predictions: For each model's name one (H, W) map of integers in 0..K-1 for each image.
        palette: (K, 3) RGB in 0..255.
        class_names: K names.
        ignore_index: Marks pixels of the truth without a class.
        scores: mIoU of models by name, shown with two digits after the point; as mmseg reports it,
            in percent.
        cell: Longer side of a shown image, pixels, at least 64.

    Returns:
        (H', W', 3) uint8 RGB.

    Raises:
        ValueError: if an argument has another shape, type, range or number of entries.
    """
    names, colours = as_classes(class_names, palette)
    cell = as_size(cell, 'cell', minimum=64)
    images, truth, predictions = _checked(images, truth, predictions, len(names), ignore_index)
    unknown = [name for name in scores or {} if name not in predictions]
    require(not unknown, 'scores', f'names among {list(predictions)}', repr(unknown[:1]))
    sizes = [_fit(image, cell) for image in images]
    column = max(max(width for _, width in sizes), 120)
    lefts = [_MARGIN + place * (column + _GAP) for place in range(2 + len(predictions))]
    page = blank(_HEADER + sum(h + _CAPTION for h, _ in sizes), lefts[-1] + column + _MARGIN)
    top = _HEADER
    with drawing(page) as figure:
        for left, name in zip(lefts, ['image', 'truth', *predictions]):
            score = f'mIoU {scores[name]:.2f}' if left > lefts[1] and name in (scores or {}) else ''
            write(figure, left, 18, name, 15, bold=True, room=column)
            write(figure, left, 37, score, 13, room=column)
        for index, (height, width) in enumerate(sizes):
            found = {name: maps[index] for name, maps in predictions.items()}
            row = _row(images[index], truth[index], found, (height, width), colours, ignore_index)
            for left, (picture, caption) in zip(lefts, row):
                x = left + (column - width) // 2
                page[top : top + height, x : x + width] = picture
                middle = top + height + _CAPTION / 2
                write(figure, x, middle, caption, 11, colour=FAINT, room=column)
            top += height + _CAPTION
    entries = _entries(truth, predictions, ignore_index, colours, names)
    legend = draw_legend(entries, page.shape[1], margin=_MARGIN)
    return stack(page, legend, _key(colours[0], page.shape[1]))


def error_map(
    prediction: np.ndarray, truth: np.ndarray, palette: np.ndarray, *, ignore_index: int = 255
) -> np.ndarray:
    """Colours a prediction: faded where right, full and outlined in ink where wrong.

    The outline is drawn on correct pixels next to wrong ones, so that every wrong pixel keeps the
    colour of the class that was predicted.

    Args:
        prediction: (H, W) integers in 0..K-1.
        truth: (H, W) integers, 0..K-1 or ``ignore_index``.
        palette: (K, 3) uint8 RGB.
        ignore_index: Marks pixels of the truth without a class; they are grey and hatched.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    ignored = truth == ignore_index
    wrong = (prediction != truth) & ~ignored
    full = palette[prediction]
    faded = np.round(_FADE * full + (1 - _FADE) * 255).astype(np.uint8)
    picture = np.where(wrong[..., None], full, faded)
    padded = np.pad(wrong, 1)
    beside = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    picture[beside & ~wrong] = INK
    return _hatched(picture, ignored)


def _checked(
    images: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    predictions: Mapping[str, Sequence[np.ndarray]],
    num_classes: int,
    ignore_index: int,
) -> tuple[list[np.ndarray], list[np.ndarray], dict[str, list[np.ndarray]]]:
    """Returns images, truth and predictions as arrays that fit each other."""
    require(len(images) > 0, 'images', 'at least one image', 'none')
    images = [as_rgb(image, f'images[{i}]') for i, image in enumerate(images)]
    sizes = [image.shape[:2] for image in images]
    same_length('truth', truth, len(images), 'images')
    truth = [
        as_labels(label_map, num_classes, f'truth[{i}]', size, ignore_index)
        for i, (label_map, size) in enumerate(zip(truth, sizes))
    ]
    mapping = isinstance(predictions, Mapping)
    found = type(predictions).__name__
    require(mapping, 'predictions', 'a mapping from names to lists', found)
    checked = {}
    for name, maps in predictions.items():
        where = f'predictions[{name!r}]'
        same_length(where, maps, len(images), 'images')
        checked[str(name)] = [
            as_labels(label_map, num_classes, f'{where}[{i}]', size)
            for i, (label_map, size) in enumerate(zip(maps, sizes))
        ]
    return images, truth, checked


def _entries(
    truth: list[np.ndarray],
    predictions: Mapping[str, list[np.ndarray]],
    ignore_index: int,
    colours: np.ndarray,
    names: list[str],
) -> list[Entry]:
    """Lists the classes present: first those of the truth by their share, then the others."""

    def shares(maps: Iterable[np.ndarray]) -> np.ndarray:
        counts = (np.bincount(m.ravel(), minlength=len(names)) / max(1, m.size) for m in maps)
        return sum(counts, np.zeros(len(names)))

    in_truth = shares(label_map[label_map != ignore_index] for label_map in truth)
    anywhere = shares(label_map for maps in predictions.values() for label_map in maps)
    ranked = np.lexsort((-anywhere, -in_truth)).tolist()
    return [Entry(c, names[c], colours[c]) for c in ranked if in_truth[c] or anywhere[c]]


def _row(
    image: np.ndarray,
    truth: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    size: tuple[int, int],
    colours: np.ndarray,
    ignore_index: int,
) -> list[tuple[np.ndarray, str]]:
    """Returns the pictures of one row, each with the line under it."""
    small = _nearest(truth, size)
    ignored = small == ignore_index
    coloured = _hatched(colours[np.where(ignored, 0, small)], ignored)
    how = 'area' if size[0] < image.shape[0] else 'smooth'
    row = [(resize(image, *size, how), f'{image.shape[1]} × {image.shape[0]}'), (coloured, '')]
    known = truth != ignore_index
    for label_map in predictions.values():
        shown = error_map(_nearest(label_map, size), small, colours, ignore_index=ignore_index)
        wrong = (label_map != truth)[known]
        told = f'{100 * wrong.mean():.1f} % wrong' if wrong.size else 'nothing labelled'
        row.append((shown, told))
    return row


def _fit(image: np.ndarray, side: int) -> tuple[int, int]:
    """Returns the largest size of an image's proportions that fits into a square, pixels."""
    scale = side / max(image.shape[:2])
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return height, width


def _nearest(label_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a label map (H, W) by the nearest pixel centre."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for new, old in zip(size, label_map.shape)
    )
    return label_map[rows[:, None], columns]


def _hatched(picture: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Returns a picture (H, W, 3) that is grey and hatched where a mask (H, W) is true."""
    return np.where(where[..., None], hatch(*where.shape), picture).astype(np.uint8)


def _key(colour: np.ndarray, width: int) -> np.ndarray:
    """Explains what faded, full and hatched mean, each with a swatch; (H, W, 3)."""
    right, wrong = np.zeros((14, 28), np.int64), np.zeros((14, 28), np.int64)
    wrong[2:-2, 3:-3] = 1
    palette = np.array([colour, colour], dtype=np.uint8)
    swatches = {
        'right': error_map(right, right, palette),
        'wrong': error_map(wrong, right, palette),
        'not labelled': hatch(14, 28),
    }
    page, left = blank(14 + _MARGIN, width), _MARGIN
    with drawing(page) as figure:
        for name, swatch in swatches.items():
            page[:14, left : left + 28] = swatch
            write(figure, left + 34, 7, name, 12)
            left += 58 + int(text_width(name, 12))
    return page
