"""Any entry of a user's config may be wrong: what is derived is derived, the rest is one line."""

import copy

import numpy as np
import pytest
from mistakes import check_mistake, mistake
from mmengine.config import Config

from mm_tuning_plugin.engine import derive_tuning_config
from mm_tuning_plugin.engine.config.entry_types import (
    CONFIGS,
    ENTRY_TYPES,
    INTEGER,
    SOME_CONFIGS,
    shown,
)
from mm_tuning_plugin.errors import UserError

WRONG = (None, 'x', 3, [], {}, [3], -1, True, 0.5)


def places(config, above=()):
    """The keys that lead to each entry of nested dicts and lists."""
    inside = config.items() if isinstance(config, dict) else enumerate(config)
    for key, value in inside:
        yield (*above, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*above, key))


def with_entry(config, place, value, delete=False):
    changed = copy.deepcopy(config)
    holder = changed
    for key in place[:-1]:
        holder = holder[key]
    if delete:
        del holder[place[-1]]
    else:
        holder[place[-1]] = value
    return Config(changed)


@pytest.mark.parametrize('start', [False, True])
def test_whatever_an_entry_is_replaced_by_nothing_but_a_line_is_raised(start, toy_cfg, tmp_path):
    config = toy_cfg.to_dict()
    data = config['train_dataloader']['dataset']
    config['train_dataloader']['dataset'] = dict(type='ConcatDataset', datasets=[data])
    config['model']['decode_head'] = [config['model']['decode_head']]
    config['custom_hooks'] = [dict(type='EMAHook')]
    untouched = ('test_dataloader', 'test_evaluator', 'test_cfg', 'mix_and_match')
    config = {key: value for key, value in config.items() if key not in untouched}
    if start:
        (tmp_path / 'start.pth').write_bytes(b'\x80')
        config['mix_and_match'] = dict(checkpoint=str(tmp_path / 'start.pth'))
    refused = tried = 0
    # a start changes how the model alone is read
    for place in [p for p in places(config) if p[0] == 'model' or not start]:
        changes = [with_entry(config, place, value) for value in WRONG]
        for changed in (*changes, with_entry(config, place, None, delete=True)):
            tried += 1
            try:
                derive_tuning_config(changed)
            except UserError as error:
                refused += 1
                check_mistake(error)
                assert len(str(error)) < 300, place
    assert tried > 300 and 50 < refused < tried


@pytest.mark.parametrize('place', ENTRY_TYPES)
def test_a_wrong_kind_is_named_with_its_place(toy_cfg, place):
    config = toy_cfg.to_dict()
    if place.startswith('data_preprocessor'):
        config['data_preprocessor'] = config['model'].pop('data_preprocessor')
    parts = place.split('.')
    with mistake(place, '0.5', ENTRY_TYPES[place].description):
        derive_tuning_config(with_entry(config, parts, 0.5))


@pytest.mark.parametrize(
    ('place', 'value', 'where', 'found', 'expected'),
    [
        ('train_dataloader.dataset', dict(type='ConcatDataset', datasets=[]),
         'dataset.datasets', '[]', SOME_CONFIGS.description),
        ('train_dataloader.dataset.pipeline', [3], 'dataset.pipeline', '[3]', CONFIGS.description),
        ('val_dataloader.dataset', None, 'dataset', 'None', 'data set'),
        ('model.decode_head.num_classes', '8', 'num_classes', "'8'", INTEGER.description),
    ],
)  # fmt: skip
def test_what_is_read_later_is_named_too(toy_cfg, place, value, where, found, expected):
    with mistake(where, found, expected):
        derive_tuning_config(with_entry(toy_cfg.to_dict(), place.split('.'), value))


def test_absent_and_none_are_the_defaults(toy_cfg):
    expected = derive_tuning_config(toy_cfg)
    toy_cfg.model.data_preprocessor.seg_pad_val = None
    toy_cfg.default_hooks.logger.interval = None
    derived = derive_tuning_config(toy_cfg)
    assert derived.train_dataloader == expected.train_dataloader
    assert derived.default_hooks.logger.interval == 4  # mmseg's 50, cut to the iterations


def test_long_values_are_cut_and_stay_on_one_line():
    assert shown(['a\nb', 3]) == "['a\\nb', 3]"
    assert shown(np.zeros((2, 2))) == 'array([[0., 0.], [0., 0.]])'
    assert shown('c' * 500) == "'" + 'c' * 119 + '...'
