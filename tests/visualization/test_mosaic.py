"""Mosaics of mixed nodes: every class a row, every tile in its class's colour."""

import numpy as np
import pytest

from mm_tuning_plugin.visualization import class_palette, patch_mosaic


def names(num_classes):
    return [f'class {i}' for i in range(num_classes)]


def area_of(picture, colour):
    return int((picture == np.asarray(colour)).all(axis=-1).sum())


def tint(shade):
    """A colour that no edge of a letter, grey on white or on a chip, has by chance."""
    return np.array([shade, 255 - shade, 131], np.uint8)


def flat_patches(shades, size=16):
    return np.stack([np.broadcast_to(tint(shade), (size, size, 3)) for shade in shades])


@pytest.mark.parametrize('num_classes', [6, 11, 21, 150])
def test_every_class_present_has_its_colour_and_no_other(num_classes):
    labels = np.random.default_rng(0).integers(0, num_classes, 144)
    palette = class_palette(num_classes)
    picture = patch_mosaic(flat_patches([33] * 144), labels, names(num_classes), palette)
    assert picture.dtype == np.uint8 and picture.ndim == 3
    packed = picture.astype(np.int64) @ [1, 256, 65536]
    areas = dict(zip(*np.unique(packed, return_counts=True)))
    for label in range(num_classes):
        area, frames = areas.get(palette[label] @ [1, 256, 65536], 0), (labels == label).sum()
        if frames:  # frames of tiles 64 wide, 3 thick; a chip that is mostly not letters
            assert area >= min(frames, 8) * (70**2 - 64**2) + 0.6 * 80 * 70
        else:  # no more than the edge of a letter may happen to have
            assert area < 30
    assert 0.3 < picture.shape[1] / picture.shape[0] < 3


def test_tiles_are_the_first_nodes_of_their_class_in_order():
    shades, labels = [10, 20, 30, 40, 50], np.array([1, 0, 1, 1, 0])
    picture = patch_mosaic(
        flat_patches(shades), labels, ['a', 'b'], [[255, 0, 0], [0, 255, 0]], max_per_class=2
    )
    places = [np.argwhere((picture == tint(s)).all(axis=-1)) for s in shades]
    assert [len(p) >= 64 * 64 for p in places] == [True, True, True, False, True]
    (y10, x10), (y20, x20), (y30, x30), (y50, x50) = (places[i].mean(0) for i in (0, 1, 2, 4))
    assert y20 == y50 < y10 == y30 and x20 == x10 < x30 == x50
    left, top = int(x20) - 33, int(y20)
    np.testing.assert_array_equal(picture[top, left - 1 : left + 1], [[255, 0, 0]] * 2)


def test_tiles_are_resized_whole():
    patch = np.zeros((1, 2, 2, 3), np.uint8)
    patch[0, 0, 0] = tint(250)
    large = patch.repeat(64, axis=1).repeat(64, axis=2)
    picture = patch_mosaic(large, [0], ['a'], [[1, 2, 3]], tile=32)
    assert area_of(picture, tint(250)) == 16 * 16


@pytest.mark.parametrize('tile', [8, 20, 33, 128])
def test_any_tile_size(tile):
    picture = patch_mosaic(
        flat_patches([7] * 3), [0, 0, 1], ['a', 'b'], class_palette(2), tile=tile
    )
    assert area_of(picture, tint(7)) >= 3 * tile * tile


def test_columns_keep_to_a_width():
    labels, patches = np.arange(60) % 30, flat_patches([0] * 60)
    pages = [
        patch_mosaic(patches, labels, names(30), class_palette(30), width=width)
        for width in (1, 700, 2000)
    ]
    widths, heights = zip(*((page.shape[1], page.shape[0]) for page in pages))
    assert widths[0] == 380 < 400 < widths[1] <= 700 < 1400 < widths[2] <= 2000
    assert heights[0] > 30 * 70 > heights[1] > heights[2]


def test_long_names_do_not_reach_the_tiles():
    picture = patch_mosaic(flat_patches([9]), [0], ['a name ' * 50], [[250, 250, 250]])
    tile = np.argwhere((picture == tint(9)).all(axis=-1))
    top, left = tile.min(0)
    assert left < 240
    between = picture[top - 3 : top + 67, left - 7 : left - 3]
    assert (between == 255).all()


@pytest.mark.parametrize('shape', [(0, 16, 16, 3), (0,), (0, 3)])
def test_no_nodes_make_a_page_that_says_so(shape):
    picture = patch_mosaic(np.zeros(shape, np.uint8), [], ['a', 'b'], class_palette(2))
    assert picture.dtype == np.uint8 and (picture < 100).any()


def test_one_node_of_one_class():
    picture = patch_mosaic(flat_patches([5], 1), [0], ['a'], class_palette(1))
    assert area_of(picture, tint(5)) >= 64 * 64


def test_the_same_page_twice_and_inputs_untouched():
    rng = np.random.default_rng(0)
    patches, labels = rng.integers(0, 256, (9, 5, 5, 3), np.uint8), rng.integers(0, 3, 9)
    before = patches.copy()
    pages = [patch_mosaic(patches, labels, names(3), class_palette(3)) for _ in range(2)]
    np.testing.assert_array_equal(*pages)
    np.testing.assert_array_equal(patches, before)


PATCHES = flat_patches([0, 0])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'patches': PATCHES / 255}, r'patches: .*float'),
        ({'patches': PATCHES[:, :5]}, r'patches: .*shape \(2, 5, 16, 3\)'),
        ({'labels': [0]}, r'labels: .*\(2,\).*shape \(1,\)'),
        ({'labels': [0.0, 1.0]}, 'labels: .*float64$'),
        ({'labels': [0, 2]}, r'labels: .*2$'),
        ({'labels': [0, -1]}, r'labels: .*-1$'),
        ({'class_names': 'ab'}, "class_names: .*'ab'$"),
        ({'class_names': [1, 2]}, 'class_names: .*1'),
        ({'class_names': []}, 'class_names: .*none$'),
        ({'palette': [[0, 0, 0]]}, r'palette: .*\(2, 3\).*\(1, 3\)'),
        ({'max_per_class': 0}, 'max_per_class: .*0$'),
        ({'tile': 7}, 'tile: .*7$'),
        ({'width': 0.5}, 'width: .*0.5$'),
    ],
)
def test_errors(change, message):
    given = {
        'patches': PATCHES,
        'labels': [0, 1],
        'class_names': ['a', 'b'],
        'palette': class_palette(2),
    }
    with pytest.raises(ValueError, match=message):
        patch_mosaic(**{**given, **change})


def test_classes_without_a_node_are_named_below():
    rows = [
        patch_mosaic(flat_patches([5]), [0], names(count), class_palette(count)) for count in (1, 2)
    ]
    assert rows[1].shape[0] > rows[0].shape[0]
    assert (rows[0][-10:] == 255).all() and (rows[1][-30:] != 255).any()


def test_counts_are_told_whole_beside_short_names(told):
    patch_mosaic(np.zeros((120, 8, 8, 3), np.uint8), np.zeros(120, int), ['a'], [[9, 9, 9]])
    assert '120, 8 shown' in told()
