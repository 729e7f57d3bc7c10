"""Nodes on their images: lines and discs exactly where the nodes are."""

import numpy as np
import pytest

from mm_tuning_plugin.visualization import class_palette, cut_nodes, node_overlay, node_sheet

RED_BLUE = np.array([[200, 0, 0], [0, 0, 200]], np.uint8)
NAMES = ['a', 'b']
GREY = np.full((500, 480, 3), 90, np.uint8)


def overlay(image, nodes, labels, **options):
    options = {'legend': False, 'scale': 1, **options}
    return node_overlay(image, np.array(nodes), np.array(labels), RED_BLUE, NAMES, **options)


def has(picture, colour):
    return (picture == np.asarray(colour)).all(axis=-1)


def test_a_boxs_line_lies_in_the_box_and_its_contrast_around_it():
    picture = overlay(GREY, [[100, 50, 300, 250]], [0])
    assert picture.shape == GREY.shape
    red = has(picture, RED_BLUE[0])
    assert red[100:300, 249].all() and red[299, 50:250].all() and red[120:300, 50].all()
    places = np.argwhere(red)
    assert places.min(0).tolist() == [100, 50] and places.max(0).tolist() == [299, 249]
    white = has(picture, (255, 255, 255))
    assert white[99, 49:251].all() and white[99:301, 250].all() and white[200, 52]
    np.testing.assert_array_equal(picture[150:250, 100:200], GREY[150:250, 100:200])
    np.testing.assert_array_equal(picture[:99], GREY[:99])


def test_small_boxes_lie_over_large_ones_whatever_their_order():
    large, small = [0, 0, 400, 400], [0, 100, 80, 200]
    for boxes, labels in (([large, small], [0, 1]), ([small, large], [1, 0])):
        picture = overlay(GREY, boxes, labels)
        assert has(picture, RED_BLUE[1])[0, 120:200].all()


@pytest.mark.parametrize('scale', [0.5, 1, 2, 3.5])
def test_what_lies_outside_is_shown_on_a_margin(scale):
    boxes = [[-40, 40, 60, 140], [100, 110, 200, 210]]
    picture = overlay(GREY[:150, :190], boxes, [0, 1], scale=scale)
    height = round(40 * scale) + round(150 * scale) + round(50 * scale)
    assert picture.shape == (height, round(190 * scale) + round(20 * scale), 3)
    red = np.argwhere(has(picture, RED_BLUE[0]))
    assert red[:, 0].min() == 0 and red[:, 0].max() == round(100 * scale) - 1
    blue = np.argwhere(has(picture, RED_BLUE[1]))
    assert (blue.max(0) == np.array(picture.shape[:2]) - 1).all()
    assert not has(picture[: int(39 * scale)], (90, 90, 90)).any()
    assert has(picture[round(40 * scale)], (90, 90, 90)).any()


def test_without_a_margin_the_picture_has_the_images_size():
    picture = overlay(GREY, [[-40, 100, 60, 200]], [0], show_outside=False)
    assert picture.shape == GREY.shape
    red = has(picture, RED_BLUE[0])
    assert red[20:59, 100].all() and not red[0, 110:190].any()


def test_a_margin_has_a_limit():
    picture = overlay(GREY[:50, :40], [[-(10**6), -(10**6), 10**6, 10**6]], [0])
    assert picture.shape == (150, 140, 3)


def test_points_are_discs_around_their_pixels_centres():
    picture = overlay(GREY, [[100, 200], [300, 50]], [0, 1])
    for colour, (y, x) in zip(RED_BLUE, [(100, 200), (300, 50)]):
        places = np.argwhere(has(picture, colour))
        np.testing.assert_array_equal(places.mean(0), (y, x))
        assert 28 <= len(places) <= 45
    assert has(picture, (255, 255, 255)).any()


def test_points_at_corners_and_outside():
    picture = overlay(GREY, [[0, 0], [499, 479], [-50, 10], [10, 9000]], [0, 1, 0, 1])
    assert picture.shape == GREY.shape
    assert has(picture, RED_BLUE[0])[0, 0] and has(picture, RED_BLUE[1])[499, 479]


def test_a_small_image_is_enlarged_and_a_name_written():
    image = np.zeros((32, 48, 3), np.uint8)
    image[:, 24:] = 77
    picture = overlay(image, [[0, 0, 32, 24]], [0], scale=None)
    assert picture.shape == (320, 480, 3)
    assert (picture[:, 240:] == 77).sum() >= 320 * 230 * 3
    assert has(picture[:16, :20], RED_BLUE[0]).sum() > 150


def test_names_do_not_cover_each_other():
    boxes = np.array([[100, 100, 260, 260]] * 4)
    picture = node_overlay(GREY, boxes, [0, 1, 0, 1], RED_BLUE, ['first', 'second'], legend=False)
    first, second = has(picture, RED_BLUE[0]), has(picture, RED_BLUE[1])
    assert first[101:116, 104:130].mean() > 0.4 and second[246:258, 104:130].mean() > 0.4


def test_names_grow_with_a_large_image():
    image = np.zeros((1200, 3000, 3), np.uint8)
    picture = overlay(image, [[100, 100, 900, 900]], [0])
    inside = has(picture[100:, 120:140], RED_BLUE[0]).all(axis=1)
    assert np.flatnonzero(inside)[0] == 0 and inside[:14].all()
    assert (picture[100:148, 100:160] == 255).all(axis=-1).sum() > 100


def test_a_legend_lists_the_classes_present():
    picture = overlay(GREY, [[10, 10]], [1], legend=True)
    below = picture[500:]
    assert picture.shape[0] > 500 and has(below, RED_BLUE[1]).sum() >= 100
    assert not has(below, RED_BLUE[0]).any()


@pytest.mark.parametrize('nodes', [np.zeros((0, 4), int), np.zeros((0, 2), int), np.zeros(0)])
def test_no_nodes_leave_the_image_alone(nodes):
    np.testing.assert_array_equal(overlay(GREY, nodes, [], legend=True), GREY)
    assert cut_nodes(GREY, nodes, 8).shape == (0, 8, 8, 3)


def test_the_image_is_not_written_to():
    image = GREY.copy()
    first = overlay(image, [[100, 50, 300, 250]], [0])
    np.testing.assert_array_equal(image, GREY)
    np.testing.assert_array_equal(first, overlay(image, [[100, 50, 300, 250]], [0]))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'image': GREY / 255}, r'image: .*float64$'),
        ({'image': GREY[:0]}, r'image: .*shape \(0, 480, 3\)'),
        ({'nodes': [[1, 2, 3]]}, r'nodes: .*shape \(1, 3\)'),
        ({'nodes': [[0.5, 2, 3, 4]]}, 'nodes: .*float64$'),
        ({'nodes': [[5, 5, 5, 9]]}, r'nodes: .*\[5, 5, 5, 9\]'),
        ({'labels': [0, 1]}, r'labels: .*\(1,\).*\(2,\)'),
        ({'labels': [2]}, r'labels: .*2$'),
        ({'palette': NAMES, 'class_names': RED_BLUE}, 'class_names: '),
        ({'scale': 0}, r'scale: .*0$'),
        ({'scale': float('nan')}, r'scale: .*nan$'),
    ],
)
def test_errors(change, message):
    given = {'image': GREY, 'nodes': [[0, 0, 9, 9]], 'labels': [0], 'palette': RED_BLUE}
    with pytest.raises(ValueError, match=message):
        node_overlay(**{**given, 'class_names': NAMES, **change})


def test_cut_nodes_are_the_pixels_and_hatched_outside():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    cut = cut_nodes(image, np.array([[2, 3, 10, 11], [-4, 26, 4, 34], [50, 50, 58, 58]]), 8)
    np.testing.assert_array_equal(cut[0], image[2:10, 3:11])
    np.testing.assert_array_equal(cut[1, 4:, :4], image[:4, 26:])
    assert set(np.unique(cut[1, :4])) == set(np.unique(cut[1, :, 4:])) == {150, 205}
    assert set(np.unique(cut[2])) == {150, 205}
    around = cut_nodes(image, np.array([[5, 6]]), 5, window=5)
    np.testing.assert_array_equal(around[0], image[3:8, 4:9])


def sheet_inputs(count, points):
    rng = np.random.default_rng(count)
    images = [np.full((40 + 9 * i, 90 - 5 * i, 3), 60, np.uint8) for i in range(count)]
    corner = [rng.integers(-5, 30, (4, 2)) for _ in images]
    nodes = corner if points else [np.concatenate([c, c + 20], axis=1) for c in corner]
    return images, nodes, [np.array([0, 1, 1, 0])] * count


@pytest.mark.parametrize('points', [False, True])
@pytest.mark.parametrize('count', [1, 2, 5])
def test_a_sheet_holds_every_image_and_every_class(count, points):
    images, nodes, labels = sheet_inputs(count, points)
    picture = node_sheet(images, nodes, labels, RED_BLUE, NAMES, cell=200, tile=24)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    for colour in RED_BLUE:
        assert has(picture, colour).sum() > count * 2 * (30**2 - 24**2)
    again = node_sheet(images, nodes, labels, RED_BLUE, NAMES, cell=200, tile=24)
    np.testing.assert_array_equal(picture, again)


def test_a_sheet_shows_the_patches_it_is_given():
    images, nodes, labels = sheet_inputs(2, False)
    patches = [np.full((4, 24, 24, 3), shade, np.uint8) for shade in (11, 22)]
    picture = node_sheet(images, nodes, labels, RED_BLUE, NAMES, patches=patches, tile=24)
    for shade in (11, 22):
        assert has(picture, (shade,) * 3).sum() >= 4 * 24 * 24


def test_a_sheet_without_nodes_and_with_150_classes():
    empty = np.zeros((0, 4), int)
    names = [f'class {i}' for i in range(150)]
    page = node_sheet([GREY], [empty], [np.zeros(0, int)], class_palette(150), names)
    assert has(page, (90, 90, 90)).any()


def test_sheet_errors():
    images, nodes, labels = sheet_inputs(2, False)
    fixed = (RED_BLUE, NAMES)
    with pytest.raises(ValueError, match=r'images: .*none$'):
        node_sheet([], [], [], *fixed)
    with pytest.raises(ValueError, match=r'nodes: .*1$'):
        node_sheet(images, nodes[:1], labels, *fixed)
    with pytest.raises(ValueError, match=r'labels: .*\(4,\)'):
        node_sheet(images, nodes, [labels[0][:3], labels[0]], *fixed)
    patches = [np.zeros((n, 8, 8, 3), np.uint8) for n in (3, 5)]
    with pytest.raises(ValueError, match=r'patches\[0\]: .*3$'):
        node_sheet(images, nodes, labels, *fixed, patches=patches)
    patches = [np.zeros((4, s, s, 3), np.uint8) for s in (8, 9)]
    with pytest.raises(ValueError, match=r'patches: .*\(8, 8, 3\), \(9, 9, 3\)'):
        node_sheet(images, nodes, labels, *fixed, patches=patches)


def test_a_sheet_of_many_images_shows_the_first_and_the_nodes_of_all():
    images, nodes, labels = sheet_inputs(5, False)
    patches = [np.full((4, 24, 24, 3), 10 * i + 7, np.uint8) for i in range(5)]
    options = dict(patches=patches, tile=24, cell=200)
    whole = node_sheet(images, nodes, labels, RED_BLUE, NAMES, **options)
    some = node_sheet(images, nodes, labels, RED_BLUE, NAMES, max_images=2, **options)
    assert some.shape[0] < whole.shape[0]
    for i in range(5):  # within a class the images take turns: the first nodes are of all of them
        assert has(some, (10 * i + 7,) * 3).sum() >= 2 * 24 * 24


def test_images_take_turns_within_a_class():
    images, nodes, labels = sheet_inputs(3, False)
    patches = [np.full((4, 24, 24, 3), 10 * i + 7, np.uint8) for i in range(3)]
    options = dict(patches=patches, tile=24, max_per_class=3)
    picture = node_sheet(images, nodes, labels, RED_BLUE, NAMES, **options)
    places = [np.argwhere(has(picture, (10 * i + 7,) * 3)) for i in range(3)]
    assert all(len(p) == 2 * 24 * 24 for p in places)  # one of each class
    left = [p[:, 1].min() for p in places]
    assert left == sorted(left)


def test_a_sheet_marks_points_in_the_middle_of_their_patches_and_boxes_not():
    image = np.full((200, 200, 3), 90, np.uint8)
    for nodes, marks in ((np.array([[100, 100]]), 1), (np.array([[68, 68, 133, 133]]), 0)):
        page = node_sheet([image], [nodes], [np.array([0])], RED_BLUE, NAMES, tile=64, cell=200)
        tile = np.argwhere(has(page, RED_BLUE[0]))  # of the patch's frame the last corner
        bottom, right = tile.max(0)
        ring = page[bottom - 66 : bottom - 2, right - 66 : right - 2]
        if not marks:
            assert (ring == 90).all()
            continue
        off = np.argwhere(has(ring, (255, 255, 255))) + 0.5 - 32
        assert len(off) > 20 and np.abs(np.hypot(*off.T) - 5).max() <= 1


def test_a_small_boxs_name_stands_above_it_and_hides_nothing():
    picture = node_overlay(
        GREY, [[200, 200, 225, 225]], [0], RED_BLUE, ['a longer name', 'b'], legend=False
    )
    assert has(picture[205:220, 205:220], (90, 90, 90)).all()
    assert has(picture[184:200, 200:225], RED_BLUE[0]).mean() > 0.5


@pytest.mark.parametrize(('count', 'shown'), [(24, 8), (25, 4)])
def test_a_sheet_of_many_classes_shows_fewer_nodes_of_each(count, shown):
    labels, patches = np.repeat(np.arange(count), 9), np.full((9 * count, 16, 16, 3), 7, np.uint8)
    names = [f'class {i}' for i in range(count)]
    nodes = np.zeros((9 * count, 2), int)
    page = node_sheet(
        [GREY], [nodes], [labels], class_palette(count), names, patches=[patches], tile=16
    )
    assert has(page, (7, 7, 7)).sum() == count * shown * 16 * 16
