import cv2
import numpy as np
import pytest
import torch
from mistakes import mistake

from mm_tuning_plugin.datasets.label_transforms import CheckLabels, MapLabels
from mm_tuning_plugin.datasets.transforms import (
    PackNodeInputs,
    SamplePatches,
    SamplePoints,
    cut_patches,
)
from mm_tuning_plugin.functional import crop_and_resize

FILL = (10.0, 120.0, 250.0)


def picture(height=40, width=60, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def scene(height=40, width=60):
    """Quadrants of classes 0 to 3, an ignored band, and padding that says 200."""
    seg_map = np.zeros((height, width), dtype=np.uint8)
    seg_map[:, width // 2 :] += 1
    seg_map[height // 2 :] += 2
    seg_map[:3] = 255
    seg_map[:, -4:] = 200
    return seg_map


def results(**changes):
    return {
        'img': picture(),
        'gt_seg_map': scene(),
        'img_path': 'a.jpg',
        'seg_map_path': 'a.png',
        **changes,
    }


# ---- cutting

BOXES = np.array(
    [
        [0, 0, 40, 40],  # along the border
        [5, 7, 17, 19],  # enlarged
        [10, 20, 26, 36],  # as it is
        [-9, -5, 11, 15],  # over the upper left corner
        [30, 50, 54, 74],  # over the lower right corner
        [-20, -10, 60, 70],  # around the whole image
        [3, 4, 5, 6],  # two pixels
    ]
)


def padded_slices(image, boxes, side, fill):
    """Pad by far enough, slice, resize: what the cutting must equal to the last bit."""
    padded = np.empty((image.shape[0] + 200, image.shape[1] + 200, image.shape[2]), image.dtype)
    padded[:] = np.rint(fill)
    padded[100:-100, 100:-100] = image
    return np.stack(
        [
            cv2.resize(padded[y0 + 100 : y1 + 100, x0 + 100 : x1 + 100], (side, side))
            for y0, x0, y1, x1 in boxes
        ]
    ).reshape(len(boxes), side, side, image.shape[2])


@pytest.mark.parametrize('side', [16, 33])
@pytest.mark.parametrize('channels', [1, 3, 4])
def test_cutting_is_padding_slicing_and_resizing(channels, side):
    image, fill = picture(channels=channels), (*FILL, 7.0)[:channels]
    patches = cut_patches(image, BOXES, side, fill)
    assert patches.shape == (len(BOXES), side, side, channels) and patches.dtype == np.uint8
    np.testing.assert_array_equal(patches, padded_slices(image, BOXES, side, fill))


@pytest.mark.parametrize('side', [16, 33])
def test_cutting_agrees_with_the_tensor_path(side):
    image = picture()
    patches = torch.from_numpy(cut_patches(image, BOXES, side, FILL)).permute(0, 3, 1, 2)
    exact = crop_and_resize(
        torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(BOXES), side, fill=FILL
    )
    # OpenCV's weights on bytes have 11 bits: what it returns is the rounded value or next to it
    assert (patches - exact).abs().max() <= 1.0


def test_cutting_a_flipped_view():
    image = picture()
    flipped = image[:, ::-1]
    np.testing.assert_array_equal(
        cut_patches(flipped, BOXES, 16, FILL), cut_patches(flipped.copy(), BOXES, 16, FILL)
    )


def test_cutting_nothing():
    assert cut_patches(picture(), np.empty((0, 4), dtype=np.int64), 8, FILL).shape == (0, 8, 8, 3)


# ---- labels


def test_map_labels_maps_all_values_at_once():
    seg_map = np.array([[0, 1, 2], [11, 30, 255]], dtype=np.uint8)
    done = MapLabels({0: 1, 1: 0, 11: 255}).transform({'gt_seg_map': seg_map})['gt_seg_map']
    assert done.dtype == np.uint8
    assert done.tolist() == [[1, 0, 2], [255, 30, 255]]


@pytest.mark.parametrize('label_map', [{1: 300}, {1: -1}])
def test_map_labels_refuses_what_no_byte_holds(label_map):
    with mistake('MapLabels.label_map', str(label_map), '0 to 255'):
        MapLabels({5: 5, **label_map})


@pytest.mark.parametrize('kind', [np.int8, np.int16, np.int32, np.int64, np.float32])
def test_map_labels_of_wider_types(kind):
    """Values that no byte holds are found there, and those that are left stay what they are."""
    seg_map = np.array([[0, 1, -1, 100]], dtype=kind)
    done = MapLabels({-1: 255, 0: 1, 1: 0}).transform({'gt_seg_map': seg_map})['gt_seg_map']
    assert done.dtype == np.uint8 and done.tolist() == [[1, 0, 255, 100]]
    done = MapLabels({0: 1, 300: 2}).transform({'gt_seg_map': seg_map})['gt_seg_map']
    assert done.tolist() == [[1, 1, -1, 100]]
    if np.iinfo(np.int16).max <= (np.iinfo(kind).max if kind != np.float32 else 1e9):
        seg_map = np.array([[300, 301]], dtype=kind)
        done = MapLabels({300: 2}).transform({'gt_seg_map': seg_map})['gt_seg_map']
        assert done.tolist() == [[2, 301]]


def test_map_labels_of_wider_types_refuses_fractions():
    with mistake('b.npy', ' 1.5 ', 'whole numbers'):
        MapLabels({1: 2}).transform(
            {'gt_seg_map': np.array([[1.5]], np.float32), 'seg_map_path': 'b.npy'}
        )


@pytest.mark.parametrize('kind', [np.int8, np.int16, np.int32, np.int64, np.float32])
def test_check_labels_maps_any_type_to_bytes(kind):
    labels = np.tile(np.array([0, 1, -1, 2, -100, 3], dtype=kind), (40, 10))
    done = CheckLabels(4, [-1, -100, 255]).transform(results(gt_seg_map=labels))['gt_seg_map']
    assert done.dtype == np.uint8
    np.testing.assert_array_equal(done[0, :6], [0, 1, 255, 2, 255, 3])
    packed = CheckLabels(4, [-1, -100]).transform(results(gt_seg_map=labels[None]))
    np.testing.assert_array_equal(packed['gt_seg_map'], done)  # (1, H, W), as PackSegInputs takes


def test_one_class_and_a_label_1_names_the_sigmoid():
    with mistake('a.png', (' 1 ', ' 0 to 0 '), 'loss_decode.use_sigmoid=True'):
        CheckLabels(1).transform(results(gt_seg_map=scene() * 0 + 1))


def test_a_byte_that_would_be_filled_with_less_than_0_is_a_mistake():
    """OpenCV makes 0 of it, a class; in a wider type it stays what it is."""
    check = CheckLabels(4, [-1, 200], filled=[-1])
    with mistake('a.png', ('8 bits', ' -1', ' 0 '), ('255', 'ignore_index', 'seg_pad_val')):
        check.transform(results())
    check.transform(results(gt_seg_map=scene().astype(np.int16)))


def test_check_labels_maps_ignored_values():
    done = CheckLabels(4, [200, 3]).transform(results())
    assert done['gt_seg_map'].dtype == np.uint8
    expected = scene()
    expected[np.isin(expected, (200, 3))] = 255
    np.testing.assert_array_equal(done['gt_seg_map'], expected)


@pytest.mark.parametrize(
    ('changes', 'where', 'problem', 'remedy'),
    [
        ({'gt_seg_map': scene(40, 50)},
         'a.png', '50 x 40', '60 x 40'),
        ({'gt_seg_map': scene(60, 40)}, 'a.png', '40 x 60', '60 x 40'),
        ({'gt_seg_map': picture()}, 'a.png', '3 channels', ()),
        ({'gt_seg_map': scene() % 4 + 2}, 'a.png', (' 4, 5 ', ' 0 to 3 '), 'reduce_zero_label'),
        ({'gt_seg_map': scene() + 9, 'seg_map_path': 'ann/b.png'}, 'ann/b.png', ' 8, ', ()),
    ],
)  # fmt: skip
def test_check_labels_refuses_what_does_not_fit(changes, where, problem, remedy):
    with mistake(where, problem, remedy):
        CheckLabels(4, [200]).transform(results(**changes))


# ---- drawing

PATCHES = {
    'num_patches': 6,
    'size_range': [8, 24],
    'patch_size': 16,
    'num_classes': 4,
    'ignore_values': [200],
    'fill': FILL,
}
POINTS = {'points_per_class': 5, 'num_classes': 4, 'ignore_values': [200]}


def test_patches_are_what_their_boxes_show():
    done = SamplePatches(**PATCHES).transform(results())
    boxes = done['node_boxes']
    centres = (boxes[:, :2] + boxes[:, 2:]) // 2
    labels = torch.from_numpy(scene().astype(np.int64))[centres[:, 0], centres[:, 1]]
    assert torch.equal(done['node_labels'], labels) and labels.max() < 4
    sides = (boxes[:, 2] - boxes[:, 0]).tolist()
    assert all(8 <= side <= 24 for side in sides)
    np.testing.assert_array_equal(
        done['node_images'], padded_slices(picture(), boxes.tolist(), 16, FILL)
    )
    assert done['node_points'].tolist() == [[i, 8, 8] for i in range(6)]


def test_patches_of_the_background():
    options = {**PATCHES, 'background_index': 0, 'background_ratio': 0.5}
    labels = SamplePatches(**options).transform(results())['node_labels']
    assert (labels == 0).sum() == 3


def test_patch_sizes_may_be_shares_of_the_image():
    options = {**PATCHES, 'size_range': [0.25, 0.25]}
    boxes = SamplePatches(**options).transform(results())['node_boxes']
    assert (boxes[:, 2:] - boxes[:, :2]).unique().tolist() == [10]


def test_points_carry_the_label_of_their_pixel():
    done = SamplePoints(**POINTS).transform(results())
    points, labels = done['node_points'], done['node_labels']
    assert points.dtype == torch.int64 and (points[:, 0] == 0).all()
    seg_map = torch.from_numpy(scene().astype(np.int64))
    assert torch.equal(seg_map[points[:, 1], points[:, 2]], labels)
    assert labels.bincount().tolist() == [5, 5, 5, 5]
    np.testing.assert_array_equal(done['node_images'], picture()[None])


def test_at_most_so_many_points():
    assert len(SamplePoints(**POINTS, max_points=7).transform(results())['node_labels']) == 7


@pytest.mark.parametrize('transform', [SamplePatches(**PATCHES), SamplePoints(**POINTS)])
def test_drawing_follows_numpys_random_state(transform):
    drawn = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        torch.manual_seed(len(drawn))
        done = transform.transform(results())
        drawn.append(done.get('node_boxes', done['node_points']))
    assert torch.equal(*drawn[:2])
    assert drawn[1].shape != drawn[2].shape or not torch.equal(*drawn[1:])


@pytest.mark.parametrize('sampler', [SamplePatches, SamplePoints])
def test_drawing_knows_ignored_values_of_wider_types(sampler):
    options = {**(PATCHES if sampler is SamplePatches else POINTS), 'ignore_values': [-1, 200]}
    labels = scene().astype(np.int32)
    labels[labels == 2] = -1
    drawn = sampler(**options).transform(results(gt_seg_map=labels))['node_labels']
    assert set(drawn.tolist()) == {0, 1, 3}


@pytest.mark.parametrize('transform', [SamplePatches(**PATCHES), SamplePoints(**POINTS)])
def test_drawing_refuses_unknown_labels(transform):
    with mistake('a.png', ' 77 '):
        transform.transform(results(gt_seg_map=np.full((40, 60), 77, dtype=np.uint8)))


# ---- packing


@pytest.mark.parametrize(
    ('transform', 'images'), [(SamplePatches(**PATCHES), 6), (SamplePoints(**POINTS), 1)]
)
@pytest.mark.parametrize('grey', [False, True])
def test_packed_shapes_and_types(transform, images, grey):
    image = picture()[:, :, 0] if grey else picture()[:, ::-1]
    packed = PackNodeInputs().transform(transform.transform(results(img=image)))
    size = (16, 16) if images == 6 else (40, 60)
    assert packed['inputs'].shape == (images, 1 if grey else 3, *size)
    assert packed['inputs'].dtype == torch.uint8 and packed['inputs'].is_contiguous()
    count = len(packed['labels'])
    assert packed['points'].shape == (count, 3) and count > 0
    assert packed['points'].dtype == packed['labels'].dtype == torch.int64
    assert packed['meta'] == {'img_path': 'a.jpg'} and 'source' not in packed


@pytest.mark.parametrize(
    ('transform', 'shape'),
    [(SamplePatches(**PATCHES), (0, 3, 16, 16)), (SamplePoints(**POINTS), (1, 3, 40, 60))],
)
@pytest.mark.parametrize('value', [255, 200])
def test_no_usable_label_no_node(transform, shape, value):
    ignored = results(gt_seg_map=np.full((40, 60), value, dtype=np.uint8))
    packed = PackNodeInputs().transform(transform.transform(ignored))
    assert packed['inputs'].shape == shape and packed['inputs'].dtype == torch.uint8
    assert packed['points'].shape == (0, 3) and packed['points'].dtype == torch.int64
    assert packed['labels'].shape == (0,) and packed['labels'].dtype == torch.int64


def test_packing_keeps_the_source_for_pictures():
    done = SamplePatches(**PATCHES).transform(results())
    source = PackNodeInputs(keep_source=True).transform(done)['source']
    assert source['img'] is done['img'] and source['boxes'] is done['node_boxes']
    assert source['seg_map'] is done['gt_seg_map']
    done = SamplePoints(**POINTS).transform(results())
    assert PackNodeInputs(keep_source=True).transform(done)['source']['boxes'] is None
