"""The survey shows what stage one draws, and its figures are those of the nodes shown."""

from dataclasses import replace

import numpy as np
import own_samplers  # noqa: F401  registers them
import pytest
import torch
from mistakes import check_mistake
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mm_tuning_plugin.engine import derive_tuning_config
from mm_tuning_plugin.engine.config.user_config import read_user_config
from mm_tuning_plugin.inspection.node_survey import as_picture, survey
from mm_tuning_plugin.inspection.survey_summary import class_rows, sampling_warnings, summary

KINDS = {
    'points': dict(nodes='points', points_per_class=3),
    'patches': dict(nodes='patches', nodes_per_image=5, size_range=(10, 40), patch_size=32),
}


def seen_of(cfg, count=6, **options):
    cfg.mix_and_match = {**cfg.mix_and_match, **options}
    return survey(cfg, read_user_config(cfg), count, window=9, pictures=2)


@pytest.mark.parametrize('kind', KINDS)
def test_the_nodes_are_those_that_stage_one_begins_with(toy_cfg, kind):
    seen = seen_of(toy_cfg, **KINDS[kind])
    tuning = derive_tuning_config(toy_cfg)
    with DefaultScope.overwrite_default_scope('mmseg'):
        loader = iter(Runner.build_dataloader(tuning['train_dataloader'], seed=0))
        batches = [next(loader), next(loader)]  # of four images each
    assert len(seen.images) == 6
    for place, image in enumerate(seen.images):
        batch, slot = batches[place // 4], place % 4
        assert image.path == batch['meta']['img_path'][slot]
        assert image.labels.tolist() == batch['labels'][slot].tolist()
        if kind == 'points':
            assert image.nodes.tolist() == batch['points'][slot][:, 1:].tolist()
        else:
            shown = torch.from_numpy(image.patches).permute(0, 3, 1, 2).flip(1)
            assert torch.equal(shown, batch['inputs'][slot])
    assert [image.picture is not None for image in seen.images] == [True, True] + 4 * [False]


@pytest.mark.parametrize('kind', KINDS)
def test_figures_by_counting(toy_cfg, kind):
    seen = seen_of(toy_cfg, **KINDS[kind])
    rows, whole = class_rows(seen), summary(seen)
    labels = np.concatenate([image.labels for image in seen.images])
    assert [row['nodes'] for row in rows] == [int((labels == i).sum()) for i in range(8)]
    assert sum(row['nodes'] for row in rows) == whole['nodes'] == len(labels)
    assert sum(row['pixel_share'] for row in rows) == pytest.approx(1, abs=1e-4)
    assert sum(row['node_share'] for row in rows) == pytest.approx(1, abs=1e-4)
    side = 48 if kind == 'points' else 64  # points are drawn on crops
    assert all(image.pixels.sum() == side * side for image in seen.images)
    for row in rows:
        with_nodes = [image for image in seen.images if row['index'] in image.labels]
        assert row['images_with_nodes'] == len(with_nodes) <= row['images'] <= 6
        measured = [i.purity[i.labels == row['index']] for i in with_nodes]
        if measured:
            median = np.median(np.concatenate(measured))
            assert row['purity'] == pytest.approx(median, abs=1e-4)
    if kind == 'points':
        assert set(whole['quantiles']) == {'purity'} and rows[0]['side'] is None
    else:
        sides = np.concatenate([i.nodes[:, 2] - i.nodes[:, 0] for i in seen.images])
        assert whole['quantiles']['side']['0.5'] == np.median(sides)
        assert 10 <= sides.min() <= sides.max() <= 40
        assert set(whole['quantiles']) == {'purity', 'side', 'covered', 'outside'}


def with_counts(seen, pixels, labels, **facts):
    """A survey of one image with the given pixels of each class and labels of nodes."""
    image = seen.images[0]._replace(
        pixels=np.array([*pixels, 0]), labels=np.array(labels, dtype=np.int64)
    )
    facts = replace(seen.facts, class_names=list('abcd'), num_classes=4, **facts)
    return seen._replace(images=[image], facts=facts)


@pytest.fixture
def patches(toy_cfg):
    toy_cfg.mix_and_match.background_index = None
    seen = seen_of(toy_cfg, 1, **KINDS['patches'])
    return lambda pixels, labels, **facts: sampling_warnings(
        with_counts(seen, pixels, labels, **facts)
    )


def test_sound_sampling_passes(patches):
    assert patches([25, 25, 25, 25], [0, 1, 2, 3]) == []


def test_classes_never_present_and_never_drawn(patches):
    absent, missed = patches([40, 40, 20, 0], [0, 1])
    check_mistake(absent, 'classes', ['1 of 4', '(d)'])
    remedy = ["mix_and_match.balance='class'", 'nodes_per_image']
    check_mistake(missed, 'sampling', ['1 of 4', '(c)'], remedy)


def test_remedies_suit_the_kind_of_nodes(toy_cfg):
    seen = seen_of(toy_cfg, 1, **KINDS['points'])
    (missed,) = sampling_warnings(with_counts(seen, [25, 25, 25, 25], [0, 1, 2]))
    check_mistake(missed, 'sampling', '(d)', ['mix_and_match.nodes_per_image', 'points_per_class'])


def test_an_image_without_nodes(patches):
    lines = patches([0, 0, 0, 0], [])
    check_mistake(lines[1], 'sampling', '1 of 1')


def test_a_class_wrongly_taken_for_background(patches):
    (line,) = patches([25, 25, 25, 25], [0, 1, 2, 3], background_index=0)
    check_mistake(line, 'background', ["'a'", '10%'], 'mix_and_match.background_index=None')


@pytest.mark.parametrize('name', ['background', 'Background', '_background_', 'void'])
def test_a_background_that_is_named_so_passes(patches, toy_cfg, name):
    seen = seen_of(toy_cfg, 1, **KINDS['patches'], background_index=0)
    counted = with_counts(seen, [70, 10, 10, 10], [0, 1, 2, 3], background_index=0)
    counted.facts.class_names[0] = name
    assert sampling_warnings(counted) == []
    (line,) = sampling_warnings(
        counted._replace(facts=replace(counted.facts, background_index=None))
    )
    check_mistake(line, 'background', [repr(name), '70.0%'], 'mix_and_match.background_index=0')


def test_a_class_that_covers_most(patches):
    (line,) = patches([10, 10, 70, 10], [0, 1, 2, 3])
    found = ["'c'", '70.0%', 'mix_and_match.background_index=2']
    check_mistake(line, 'background', found, "balance='class'")


@pytest.mark.parametrize('told', [True, False])
def test_a_registered_sampler_is_shown_by_its_kind(toy_cfg, told):
    ours = seen_of(toy_cfg, **KINDS['patches'])
    own = dict(type='mm_tuning_plugin.OwnPatches', like='patches', num_patches=5, told=told)
    own['fill'] = [103.53, 116.28, 123.675]
    seen = seen_of(toy_cfg, nodes=own)
    assert summary(seen)['node_kind'] == 'OwnPatches'
    for image, other in zip(seen.images, ours.images):
        assert (image.patches == other.patches).all(), 'what the backbone sees'
    figures = (class_rows, lambda s: summary(s)['quantiles'])
    if told:
        assert [of(seen) for of in figures] == [of(ours) for of in figures]
        assert class_rows(seen)[0]['side'] is not None
    else:
        assert {row[key] for row in class_rows(seen) for key in ('purity', 'side', 'covered')} == {
            None
        }
        assert [row['nodes'] for row in class_rows(seen)] == [
            row['nodes'] for row in class_rows(ours)
        ]
    (missed,) = sampling_warnings(with_counts(seen, [25, 25, 25, 25], [0, 1, 2]))
    check_mistake(missed, 'sampling', '(d)', 'OwnPatches')
    assert sampling_warnings(with_counts(seen, [10, 10, 70, 10], [0, 1, 2, 3])) == []


def test_points_on_parts_of_an_image_are_shown_on_these(toy_cfg):
    toy_cfg.train_dataloader.dataset.pipeline.pop(3)  # flips: the crops stay where they are
    ours = seen_of(toy_cfg, **KINDS['points'])
    own = dict(type='mm_tuning_plugin.OwnCrops', points_per_class=3, max_points=128)
    seen = seen_of(toy_cfg, nodes=own)
    assert summary(seen)['node_kind'] == 'OwnCrops' and np.isnan(seen.joined('purity')).all()
    for image, other in zip(seen.images, ours.images):
        middles = [part.patches[:, 32, 32].astype(int) for part in (image, other)]
        assert len(image.labels) and abs(middles[0] - middles[1]).mean() < 2


def test_points_have_no_background(toy_cfg):
    seen = seen_of(toy_cfg, 1, **KINDS['points'])
    assert sampling_warnings(with_counts(seen, [10, 10, 70, 10], [0, 1, 2, 3])) == []


def test_pictures_of_any_channels():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert as_picture(grey).shape == (3, 4, 3) and (as_picture(grey)[..., 2] == grey).all()
    bgr = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    assert (as_picture(bgr)[0, 0] == [2, 1, 0]).all()
    assert as_picture(np.full((2, 3, 3, 5), 300.7)).tolist()[0][0][0] == [255, 255, 255]


def test_padded_pixels_count_as_ignored(toy_cfg):
    """A transform behind the check of labels pads them with the user's own value."""
    toy_cfg.model.data_preprocessor.seg_pad_val = 200
    pad = dict(type='Pad', size=(80, 80), pad_val=dict(img=0, seg=200))
    toy_cfg.train_dataloader.dataset.pipeline[2:4] = [pad]
    seen = seen_of(toy_cfg, 2, **KINDS['points'])
    assert [image.pixels.sum() for image in seen.images] == [80 * 80] * 2
    assert all(image.pixels[-1] >= 80 * 80 - 64 * 64 for image in seen.images)


def test_the_mosaic_begins_with_one_node_of_every_image(toy_cfg):
    seen = seen_of(toy_cfg, **KINDS['points'])
    images = np.repeat(np.arange(6), [len(image.labels) for image in seen.images])
    labels, order = seen.labels, seen.spread
    assert sorted(order.tolist()) == list(range(len(labels)))
    for label in np.unique(labels):
        having = len(set(images[labels == label]))
        first = images[order[labels[order] == label][:having]]
        assert len(set(first)) == having
