"""The option ``augment``: what tuning alone sees, and where it stands."""

import numpy as np
import pytest
from mistakes import mistake
from mmcv.transforms import Compose
from mmengine.registry import DefaultScope

from mm_tuning_plugin.engine import MixAndMatchRunner, derive_tuning_config
from mm_tuning_plugin.engine.config.augmentation import (
    AUGMENTATIONS,
    augmentation,
    moves_without_crop,
)
from mm_tuning_plugin.engine.config.derive_pipelines import with_augmentation

GREY = dict(type='RandomGrayscale', prob=0.5)


def types(dataset):
    while 'pipeline' not in dataset:
        dataset = dataset['dataset']
    return [step['type'].rsplit('.', 1)[-1] for step in dataset['pipeline']]


def test_it_stands_before_the_first_crop_of_stage_one_and_nowhere_else(toy_cfg):
    before = toy_cfg.pretty_text
    plain = derive_tuning_config(toy_cfg)
    assert toy_cfg.pretty_text == before
    toy_cfg.mix_and_match.update(augment=[GREY], bn_crops=2)
    derived = derive_tuning_config(toy_cfg)
    assert types(derived.train_dataloader.dataset) == [
        'LoadImageFromFile', 'LoadAnnotations', 'CheckLabels', 'RandomGrayscale', 'RandomCrop',
        'RandomFlip', 'SamplePoints', 'PackNodeInputs',
    ]  # fmt: skip
    derived.train_dataloader.dataset.dataset.pipeline.pop(3)
    assert derived.train_dataloader == plain.train_dataloader
    assert derived.val_dataloader == plain.val_dataloader
    (estimates,) = [hook for hook in derived.custom_hooks if 'num_crops' in hook]
    assert 'RandomGrayscale' not in types(estimates.dataset), 'these are crops of fine-tuning'


def test_patches_are_cut_from_augmented_images(toy_cfg):
    toy_cfg.mix_and_match.update(augment=[GREY], nodes='patches')
    assert types(derive_tuning_config(toy_cfg).train_dataloader.dataset)[-4:] == [
        'RandomFlip', 'RandomGrayscale', 'SamplePatches', 'PackNodeInputs',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        (['Load', 'RandomCrop', 'RandomFlip', 'PackSegInputs'], 1),
        (['Load', 'mmseg.RandomCrop', 'CenterCrop', 'Pack'], 1),
        (['Load', 'RandomFlip', 'PackSegInputs'], 2),
        (['Load', 'RandomFlip'], 2),
    ],
)
def test_the_place_in_a_pipeline(names, expected):
    extra = [GREY, dict(type='CLAHE')]
    pipeline = [dict(type=name) for name in names]
    made = with_augmentation(pipeline, extra)
    assert made[expected : expected + 2] == extra
    assert made[:expected] + made[expected + 2 :] == pipeline


def test_what_a_name_stands_for_cannot_be_spoilt():
    assert augmentation(None) == augmentation([]) == []
    augmentation('strong')[0]['transforms'].clear()
    assert augmentation('strong') == AUGMENTATIONS['strong'] != []


def test_strong_changes_sizes_and_colours_and_moves_labels_along():
    with DefaultScope.overwrite_default_scope('mmseg'):
        transform = Compose(augmentation('strong'))
    np.random.seed(0)
    image = np.random.randint(100, 140, (40, 60, 3), dtype=np.uint8)
    seg_map = np.tile(np.repeat(np.array([2, 5, 255], np.uint8), 20), (40, 1))
    sizes, brightness = set(), []
    for _ in range(60):
        made = transform(
            dict(img=image.copy(), gt_seg_map=seg_map.copy(), img_shape=(40, 60),
                 seg_fields=['gt_seg_map'])
        )  # fmt: skip
        assert made['gt_seg_map'].shape == made['img'].shape[:2]
        assert set(np.unique(made['gt_seg_map'])) == {2, 5, 255}
        sizes.add(made['img'].shape[:2])
        brightness.append(made['img'].mean())
    assert sizes == {(20, 30), (28, 42), (40, 60), (56, 84), (80, 120)}
    assert max(brightness) - min(brightness) > 80, 'mmseg alone moves them by at most 64'


def test_both_stages_run_and_another_augmentation_is_another_tuning(toy_cfg):
    MixAndMatchRunner.from_cfg(toy_cfg).tune()
    toy_cfg.mix_and_match.augment = 'strong'
    tuning = f'{toy_cfg.work_dir}/tuning'
    with mistake(tuning, ['mix_and_match.augment', 'None', "'strong'"], 'mix_and_match.overwrite'):
        MixAndMatchRunner.from_cfg(toy_cfg).tune()
    toy_cfg.mix_and_match.overwrite = True
    runner = MixAndMatchRunner.from_cfg(toy_cfg)
    runner.train()
    assert runner.stages['fine_tuning']['iterations'] == 4


def test_a_transform_that_nobody_registered_is_told_before_tuning(toy_cfg):
    toy_cfg.mix_and_match.augment = [dict(type='RandomGreyscale')]
    with mistake('mix_and_match.augment.0', "'RandomGreyscale'"):
        MixAndMatchRunner.from_cfg(toy_cfg).train()


def test_which_augmentation_leaves_images_of_other_sizes():
    crop, resize = dict(type='RandomCrop'), dict(type='Resize')
    inside = [dict(type='RandomApply', transforms=[resize])]
    assert moves_without_crop([GREY], inside) and moves_without_crop([GREY], [GREY, resize])
    assert moves_without_crop([GREY], augmentation('strong'))
    assert not moves_without_crop([GREY, crop], inside)
    assert not moves_without_crop([GREY], [GREY, dict(type='RandomFlip')])
