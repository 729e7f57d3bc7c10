"""A finished tuning is known again by later versions, and by any way to write the same types."""

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from mistakes import mistake
from mmengine.config import Config

from mm_tuning_plugin.engine import OPTIONS, derive_tuning_config, resolve_options
from mm_tuning_plugin.engine.config.options import Options, counted_options, declare_option
from mm_tuning_plugin.engine.reuse.fingerprint import (
    ADDED_ARGUMENTS,
    differences,
    fingerprint,
)

# What earlier versions wrote of `config`, one a version that changed which entries there are.
EARLIER = json.loads(Path(__file__).with_name('earlier_fingerprints.json').read_text())
POINTS = dict(nodes='points', loss='supervised_contrastive')
CASES = {
    'points': POINTS,
    'patches': dict(nodes='patches', loss='supervised_contrastive'),
    'bn': dict(POINTS, bn_crops=2),
}
LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
CROP = [dict(type='RandomCrop', crop_size=(48, 48)), dict(type='RandomFlip', prob=0.5)]


def config(**options):
    norm = dict(type='BN', requires_grad=True)

    def dataset(split, steps):
        return dict(
            type='BaseSegDataset',
            data_root='/data',
            metainfo=dict(classes=('a', 'b', 'c')),
            data_prefix=dict(img_path=f'img/{split}', seg_map_path=f'ann/{split}'),
            pipeline=[*LOAD, *steps, dict(type='PackSegInputs')],
        )

    model = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True, size=(48, 48),
        ),
        backbone=dict(
            type='ResNet', depth=18, stem_channels=8, base_channels=8, out_indices=(0, 1, 2, 3),
            norm_cfg=norm,
        ),
        decode_head=dict(type='FCNHead', in_channels=64, in_index=3, channels=8, num_classes=3),
    )  # fmt: skip
    return Config(
        dict(
            default_scope='mmseg',
            work_dir='w',
            randomness=dict(seed=7),
            model=model,
            train_dataloader=dict(batch_size=2, num_workers=0, dataset=dataset('train', CROP)),
            val_dataloader=dict(batch_size=1, num_workers=0, dataset=dataset('val', [])),
            optim_wrapper=dict(
                type='OptimWrapper',
                optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4),
            ),
            mix_and_match=options,
        )
    )


def of(cfg):
    options = resolve_options(cfg.get('mix_and_match'))
    return fingerprint(derive_tuning_config(cfg), options, '3 images, abc')


@pytest.fixture(scope='module')
def now():
    return {case: of(config(**options)) for case, options in CASES.items()}


@pytest.mark.parametrize('earlier', EARLIER, ids=[f'{e["version"]}, {e["case"]}' for e in EARLIER])
def test_what_earlier_versions_wrote_is_known_again(now, earlier):
    present = now[earlier['case']]
    assert differences(earlier['fingerprint'], present) == ''
    for name, value in (('chunk_size', 4), ('levels', 'all'), ('border_share', 0.5)):
        changed = {**present, f'mix_and_match.{name}': value}
        assert f'mix_and_match.{name} was' in differences(earlier['fingerprint'], changed)


def test_the_fingerprint_of_an_ordinary_config_stays_as_it_is(now):
    for earlier in (e for e in EARLIER if e['version'] == 'with border_share'):
        present = now[earlier['case']]
        known = {key: present[key] for key in earlier['fingerprint']}
        assert json.dumps(known) == json.dumps(earlier['fingerprint'])


@dataclass(frozen=True)
class LaterOptions(Options):
    """The options of a version to come."""

    shuffle: bool = declare_option(False, lambda v: isinstance(v, bool), 'a bool', 'Toy.')


def test_an_option_added_at_its_default_keeps_earlier_tunings(now):
    def later(**given):
        counted = counted_options(resolve_options(given, LaterOptions))
        return {**now['points'], 'mix_and_match.shuffle': counted['shuffle']}

    assert differences(now['points'], later(), kind=LaterOptions) == ''
    told = differences(now['points'], later(shuffle=True), kind=LaterOptions)
    assert told == 'mix_and_match.shuffle was False and is now True'
    with mistake('mix_and_match.shuffle', problem='3', remedy='a bool'):
        resolve_options(dict(shuffle=3), LaterOptions)


def test_an_option_without_effect_on_the_weights_is_no_part(now):
    named = {key.split('.')[1] for key in now['points'] if key.startswith('mix_and_match.')}
    assert named == {option.name for option in OPTIONS if option.changes_weights}


def test_a_default_that_changes_later_is_a_difference(now):
    before = {k: v for k, v in now['points'].items() if k != 'mix_and_match.levels'}
    changed = {**now['points'], 'mix_and_match.levels': 'all'}  # as if this were the default
    assert differences(before, changed) == "mix_and_match.levels was 'head' and is now 'all'"
    assert differences(changed, now['points'])


def test_an_argument_in_a_list_counts_as_its_value_when_it_came(now):
    pipeline = 'dataset.dataset.pipeline'
    (step,) = [s for s in now['points'][pipeline] if s['type'] in ADDED_ARGUMENTS]
    lacking = copy.deepcopy(now['points'])
    lacking[pipeline][-2].pop('border_share')
    assert step['border_share'] == 0.0 and differences(lacking, now['points']) == ''
    changed = copy.deepcopy(now['points'])
    changed[pipeline][-2]['border_share'] = 0.5
    assert differences(lacking, changed).startswith('dataset.dataset.pipeline was')


def test_an_option_that_counts_no_more_counts_if_it_did_something(now):
    for name, value in (('bn_crops', 0),):
        assert differences({**now['points'], f'mix_and_match.{name}': value}, now['points']) == ''
        told = differences({**now['points'], f'mix_and_match.{name}': 2}, now['points'])
        assert told == f'mix_and_match.{name} was 2 and is now None'


def test_nothing_known_equals_no_settings(now):
    assert 'more' in differences({}, now['points'])


def as_classes(part):
    """Nested configs with classes for their types."""
    from mmengine import registry as roots
    from mmseg.registry import DATASETS, MODELS, TRANSFORMS

    if isinstance(part, dict):
        found = {key: as_classes(value) for key, value in part.items()}
        if 'type' in found:
            hubs = (MODELS, DATASETS, TRANSFORMS, roots.OPTIMIZERS, roots.OPTIM_WRAPPERS)
            found['type'] = next(hub.get(found['type']) for hub in hubs if hub.get(found['type']))
        return found
    return type(part)(map(as_classes, part)) if isinstance(part, (list, tuple)) else part


@pytest.mark.parametrize('case', CASES)
def test_classes_count_as_their_registered_names(now, case):
    given = config(**CASES[case])
    cfg = Config(as_classes({k: v for k, v in given.to_dict().items() if k != 'mix_and_match'}))
    cfg.mix_and_match = given.mix_and_match
    assert cfg.model.backbone.type.__name__ == 'ResNet'
    assert json.dumps(of(cfg)) == json.dumps(now[case])


def test_how_classes_were_written_once_is_known_again(now):
    before = {
        **now['points'],
        'backbone.type': "<class 'mmseg.models.backbones.resnet.ResNet'>",
        'optim_wrapper.optimizer.type': 'torch.optim.sgd.SGD',
    }
    assert differences(before, now['points']) == ''
    before['backbone.type'] = "<class 'mmseg.models.backbones.resnet.ResNetV1c'>"
    assert differences(before, now['points']).startswith("backbone.type was 'ResNetV1c' and is")
