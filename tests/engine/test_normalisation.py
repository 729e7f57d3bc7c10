"""What stage one takes of a data preprocessor: mmseg's own, one derived from it, another."""

import re

import pytest
import torch
from mistakes import mistake
from mmengine.model import BaseDataPreprocessor
from mmseg.models import SegDataPreProcessor
from mmseg.registry import MODELS

from mm_tuning_plugin.engine import MixAndMatchRunner, derive_tuning_config
from mm_tuning_plugin.engine.config.normalisation import (
    describe_derived,
    read_derived,
    read_normalisation,
    read_size,
)


@MODELS.register_module()
class HelpedPreProcessor(SegDataPreProcessor):
    """Adds a method, overrides none."""

    def count(self, data):
        return len(data['inputs'])


class Noise:
    def cast_data(self, data):
        return super().cast_data(data)


class NoisyPreProcessor(Noise, SegDataPreProcessor):
    """Overrides one method itself, another in a class that is mixed in."""

    def __init__(self, *args, amount=0.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.amount = amount

    def forward(self, data, training=False):
        return super().forward(data, training)


class HousePreProcessor(SegDataPreProcessor):
    """Says in its constructor what others say in their configs."""

    def __init__(self):
        torch.rand(1)
        super().__init__(
            mean=[1.5, 2.5, 3.5], std=[4.0, 5.0, 6.0], rgb_to_bgr=True, seg_pad_val=9, size=(40, 32)
        )


class Stranger(BaseDataPreprocessor):
    """One that mmseg knows nothing of."""


class SameName(BaseDataPreprocessor):
    """A stranger that calls itself as mmseg's does."""


SameName.__name__ = 'SegDataPreProcessor'


def with_type(cfg, kind, **options):
    cfg.model.data_preprocessor.update(type=kind, **options)
    return cfg


@pytest.mark.parametrize(
    'kind',
    [
        'mmseg.SegDataPreProcessor',
        SegDataPreProcessor,
        'mmseg.models.data_preprocessor.SegDataPreProcessor',
        'HelpedPreProcessor',
        'mmseg.HelpedPreProcessor',
        HelpedPreProcessor,
        NoisyPreProcessor,
    ],
)
def test_mmsegs_and_its_kin_are_read_alike(toy_cfg, kind):
    expected = read_normalisation(toy_cfg), derive_tuning_config(toy_cfg).to_dict()
    assert expected[0] == ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], True, 255)
    state = torch.get_rng_state()
    cfg = with_type(toy_cfg, kind)
    assert (read_normalisation(cfg), derive_tuning_config(cfg).to_dict()) == expected
    assert read_size(cfg) == (48, 48)
    cfg.data_preprocessor = cfg.model.pop('data_preprocessor')
    assert read_normalisation(cfg) == expected[0]
    assert torch.equal(torch.get_rng_state(), state)


def test_what_a_constructor_says_counts(toy_cfg):
    toy_cfg.model.data_preprocessor = dict(type=HousePreProcessor)
    state = torch.get_rng_state()
    assert read_normalisation(toy_cfg) == ([1.5, 2.5, 3.5], [4.0, 5.0, 6.0], True, 9)
    assert read_size(toy_cfg) == (40, 32)
    assert torch.equal(torch.get_rng_state(), state)
    toy_cfg.mix_and_match.bn_crops = 2
    derived = derive_tuning_config(toy_cfg)
    assert derived.model.data_preprocessor.mean == [1.5, 2.5, 3.5]
    (hook,) = [h for h in derived.custom_hooks if h.type.endswith('.EstimateBatchNormHook')]
    assert hook.size == [40, 32]
    assert 9 in hook.dataset.dataset.pipeline[-2].ignore_values


@pytest.mark.parametrize(
    ('kind', 'options', 'overridden', 'unknown'),
    [
        ('HelpedPreProcessor', {}, [], []),
        (NoisyPreProcessor, {}, ['cast_data', 'forward'], []),
        (NoisyPreProcessor, dict(amount=0.5, seg_pad_val=3), ['cast_data', 'forward'], ['amount']),
    ],
)
def test_what_is_not_taken_over_is_named(toy_cfg, kind, options, overridden, unknown):
    derived = read_derived(with_type(toy_cfg, kind, **options))
    assert (derived.overridden, derived.options) == (overridden, unknown)
    line = describe_derived(derived)
    assert '\n' not in line and getattr(kind, '__name__', kind) in line
    assert all((name in line) == (name in overridden) for name in ('cast_data', 'forward'))
    assert all(name in line for name in unknown)


@pytest.mark.parametrize('kind', ['SegDataPreProcessor', SegDataPreProcessor])
def test_of_mmsegs_own_nothing_is_told(toy_cfg, kind):
    assert read_derived(with_type(toy_cfg, kind)) is None
    del toy_cfg.model['data_preprocessor']
    assert read_derived(toy_cfg) is None


@pytest.mark.parametrize(
    ('kind', 'found'),
    [
        (Stranger, 'Stranger'),
        (SameName, 'SegDataPreProcessor'),
        ('BaseDataPreprocessor', 'BaseDataPreprocessor'),
        ('nowhere.Anything', 'nowhere.Anything'),
        ('VPDDataPreProcessor', 'VPDDataPreProcessor'),
    ],
)
def test_others_are_refused(toy_cfg, kind, found):
    with mistake('data_preprocessor', found, 'SegDataPreProcessor'):
        read_normalisation(with_type(toy_cfg, kind))


def test_one_that_cannot_be_built_is_named(toy_cfg):
    with mistake('data_preprocessor', re.compile('HousePreProcessor.*Error')):
        read_normalisation(with_type(toy_cfg, HousePreProcessor))


def test_a_run_says_so_once(toy_cfg, capfd):
    with_type(toy_cfg, NoisyPreProcessor)
    toy_cfg.mix_and_match.update(max_iters=1, retrieval_images=0)
    MixAndMatchRunner.from_cfg(toy_cfg).tune()
    lines = [line for line in capfd.readouterr().out.splitlines() if ' WARNING ' in line]
    (line,) = [line for line in lines if 'NoisyPreProcessor' in line]
    assert 'cast_data' in line and 'forward' in line
