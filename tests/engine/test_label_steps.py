"""What the label check is told of the user's transforms, and what those behind it are given."""

import copy

import numpy as np
import pytest
from mistakes import mistake
from mmcv.transforms import BaseTransform, Compose
from mmengine.registry import DefaultScope
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS

from mm_tuning_plugin.datasets import cache_loading
from mm_tuning_plugin.datasets.label_values import map_labels, usable_label_table
from mm_tuning_plugin.engine import derive_tuning_config
from mm_tuning_plugin.engine.config.derive_pipelines import GEOMETRIC, tuning_pipeline
from mm_tuning_plugin.engine.config.label_transforms import in_bytes
from mm_tuning_plugin.engine.config.options import resolve_options
from mm_tuning_plugin.engine.reuse.fingerprint import fingerprint

CHECK = dict(type='mm_tuning_plugin.CheckLabels', num_classes=4, ignore_values=[-1, 255])
IMAGE, LABELS, PACK = (
    dict(type=name) for name in ('LoadImageFromFile', 'LoadAnnotations', 'PackSegInputs')
)


class LoadsMore(LoadAnnotations):
    """Loads as mmseg does, then does something of its own."""

    def transform(self, results):
        return super().transform(results)


class LoadsItself(LoadAnnotations):
    def _load_seg_map(self, results):
        results['gt_seg_map'] = None


class Foreign(BaseTransform):
    def transform(self, results):
        return results


@pytest.fixture
def registered(monkeypatch):
    for kind in (LoadsMore, LoadsItself, Foreign):
        monkeypatch.setitem(TRANSFORMS._module_dict, kind.__name__, kind)


def check_of(*steps, keep=(), **options):
    """The derived config of the label check, without what is always there."""
    derived = tuning_pipeline([*steps, PACK], keep, {**CHECK, **options}, dict(type='S'))
    (check,) = [step for step in derived if step['type'] == CHECK['type']]
    return {k: v for k, v in check.items() if k not in CHECK}


FOREIGN = dict(type='Foreign')


@pytest.mark.parametrize(
    ('steps', 'found'),
    [
        ([IMAGE, LABELS], {}),
        ([IMAGE, FOREIGN, LABELS], {}),
        ([IMAGE, dict(type='mmseg.LoadAnnotations')], {}),
        ([IMAGE, dict(type=LoadAnnotations, imdecode_backend='cv2')], {}),
        ([LABELS, dict(type='mm_tuning_plugin.MapLabels', label_map={1: 255}), IMAGE], {}),
        ([dict(type='mm_tuning_plugin.Cached', transforms=[IMAGE, LABELS])], {}),
        ([IMAGE, LABELS, dict(type='RandomFlip', prob=0.5)], {}),
        ([IMAGE, LABELS, FOREIGN], dict(label_loader='either')),
        ([IMAGE, LABELS, dict(type='NobodyKnows')], dict(label_loader='either')),
        ([dict(type='mm_tuning_plugin.Cached', transforms=[LABELS, FOREIGN])],
         dict(label_loader='either')),
        ([IMAGE, dict(type='LoadsMore')], dict(label_loader='either')),
        ([IMAGE, dict(type='LoadsItself')], dict(label_loader='own')),
        ([IMAGE, dict(type=Foreign)], dict(label_loader='own')),
        ([IMAGE, dict(type='mmcv.LoadAnnotations', with_seg=True)], dict(label_loader='own')),
        ([IMAGE, dict(type='no_such_package.Loader')], dict(label_loader='own')),
        ([], dict(label_loader='own')),
        ([IMAGE, dict(LABELS, backend_args=dict(backend='petrel'))],
         dict(backend_args=dict(backend='petrel'))),
        ([IMAGE, dict(LABELS, backend_args=None)], {}),
    ],
)  # fmt: skip
def test_who_reads_the_label_maps(steps, found, registered):
    assert check_of(*steps) == found


PAD = dict(type='Pad', size=(96, 96), pad_val=dict(img=0, seg=-1))


@pytest.mark.parametrize(
    ('steps', 'filled'),
    [
        ([LABELS, PAD], [-1]),
        ([LABELS, dict(type='RandomRotate', prob=1.0, degree=9, seg_pad_val=-2), PAD], [-2, -1]),
        ([LABELS, dict(type='RandomApply', transforms=[dict(type='Pad', pad_val={'seg': -1})])],
         [-1]),
        ([LABELS, dict(type='Albu', transforms=[dict(type='PadIfNeeded', mask_value=-1)])], [-1]),
        ([PAD, LABELS], None),  # of the image alone
        ([LABELS, dict(type='Pad', size=(9, 9), pad_val=dict(img=-1, seg=255))], None),
        ([LABELS, dict(type='Pad', size=(9, 9), pad_val=-1)], None),  # of the image: mmcv's rule
        ([LABELS, dict(type='RandomCrop', crop_size=(9, 9), ignore_index=-1)], None),
        ([LABELS, dict(type='RandomMosaic', seg_pad_val=-1)], None),
        ([LABELS, dict(type='RandomRotate', seg_pad_val=300)], None),  # OpenCV makes it 255
    ],
)  # fmt: skip
def test_what_is_filled_with_less_than_a_byte_holds(steps, filled):
    assert check_of(*steps).get('filled') == filled


def test_what_is_behind_the_check_ignores_255():
    def behind(step, ignored=(-1, 255, 65535)):
        return in_bytes(step, ignored)

    assert behind(PAD)['pad_val'] == dict(img=0, seg=255)
    crop = dict(type='RandomCrop', crop_size=(9, 9), ignore_index=-1)
    assert behind(crop) == dict(crop, ignore_index=255)
    assert isinstance(behind(crop)['crop_size'], tuple)
    rotate = dict(type='RandomRotate', degree=9.0, seg_pad_val=65535)
    assert behind(rotate) == dict(rotate, seg_pad_val=255)
    nested = dict(type='RandomChoice', transforms=[[PAD], [rotate]])
    assert behind(nested)['transforms'] == [[behind(PAD)], [behind(rotate)]]
    # what nobody ignores: a count of it is a count of nothing, a filling of it is a mistake
    assert behind(crop, [255]) == crop
    for step, value in ((PAD, '-1'), (rotate, '65535'), (nested, '-1')):
        with mistake(step['type'], value, '[255]'):
            behind(step, [255])


def test_ordinary_transforms_are_handed_on_as_they_are():
    steps = [
        dict(type='Pad', size=(9, 9), pad_val=dict(img=-300, seg=255)),
        dict(type='RandomRotate', degree=(-400, 400), seg_pad_val=0, pad_val=300),
        dict(type='RandomCrop', crop_size=(512, 512), ignore_index=0),
        dict(type='Albu', transforms=[dict(type='Rotate', limit=360, mask_value=None)]),
    ]
    for step in steps:
        assert in_bytes(step, [255]) is step


GEOMETRY = [
    dict(type='Pad', size=(80, 90), pad_val=dict(img=0, seg=-1)),
    dict(type='RandomRotate', prob=1.0, degree=40, seg_pad_val=-1),
    dict(type='RandomCrop', crop_size=(48, 48), cat_max_ratio=0.4, ignore_index=-1),
    dict(type='RandomFlip', prob=0.5),
]


@pytest.mark.parametrize('kind', [np.int16, np.float32])
def test_labels_are_those_that_fine_tuning_gets(kind, imported):
    """Whatever fills with -1, and whatever counts it, before or behind the check."""
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(-1, 4, (7, 9)), np.ones((8, 8))).astype(kind)
    image = rng.integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
    table = usable_label_table(4, [-1, 255])
    derived = tuning_pipeline([IMAGE, FOREIGN, *GEOMETRY, PACK], GEOMETRIC, CHECK, dict(type='S'))
    with DefaultScope.overwrite_default_scope('mmseg'):
        theirs, ours = Compose(copy.deepcopy(GEOMETRY)), Compose(derived[2:-2])
        filled = 0
        for seed in range(12):
            done = []
            for pipeline in (theirs, ours):
                np.random.seed(seed)
                given = dict(img=image.copy(), img_shape=image.shape[:2],
                             gt_seg_map=labels.copy(), seg_fields=['gt_seg_map'])  # fmt: skip
                done.append(pipeline(given))
            np.testing.assert_array_equal(done[0]['img'], done[1]['img'])
            expected = map_labels(done[0]['gt_seg_map'], table, 'a', [-1, 255])
            # OpenCV rounds on the borders of classes by the type of the array
            assert (done[1]['gt_seg_map'] != expected).mean() < 0.003
            assert done[1]['gt_seg_map'].dtype == np.uint8
            filled += (expected == 255).sum()
    assert filled > 1000


def test_nothing_of_this_is_another_tuning(toy_cfg, registered):
    """And of an ordinary config nothing is derived that was not there before."""

    def checks(derived):
        steps = derived.train_dataloader.dataset.dataset.pipeline
        return [step for step in steps if step['type'] == CHECK['type']]

    (plain,) = checks(derive_tuning_config(toy_cfg))
    assert set(plain) == set(CHECK)
    assert checks(derive_tuning_config(cache_loading(toy_cfg))) == [plain]

    users = toy_cfg.train_dataloader.dataset.pipeline
    users[1] = dict(type='LoadsMore', backend_args=dict(backend='local'))
    users.insert(2, PAD)
    toy_cfg.model.decode_head.ignore_index = -1
    derived, options = derive_tuning_config(toy_cfg), resolve_options(toy_cfg.mix_and_match)
    told = fingerprint(derived, options, 'data')
    (check,) = checks(derived)
    assert set(check) == {*CHECK, 'label_loader', 'backend_args', 'filled'}
    for key in set(check) - set(CHECK):
        del check[key]
    assert fingerprint(derived, options, 'data') == told
