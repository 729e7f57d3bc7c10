"""Both stages of a small config on the toy data set, and what must hold afterwards."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

import pytest
import torch
from cases import SIZE
from mmengine.config import Config
from mmengine.model import BaseModel

from mm_tuning_plugin.checkpoint import hash_state_dict
from mm_tuning_plugin.engine import MixAndMatchRunner, derive_tuning_config
from mm_tuning_plugin.engine.runner import FineTuningRunner
from mm_tuning_plugin.registry import MODELS
from mm_tuning_plugin.structures import NodeBatch


def on_toy_data(cfg: Config, toy_cfg: Config) -> Config:
    """The real config on the toy data set: its own pipeline, small; its loop cut to one step."""
    cfg = copy.deepcopy(cfg)
    pipeline = [small_step(step, cfg.model.data_preprocessor.size) for step in cfg.train_pipeline]
    cfg.train_dataloader = copy.deepcopy(toy_cfg.train_dataloader)
    cfg.train_dataloader.dataset.pipeline = pipeline
    for loop in ('val', 'test'):
        cfg[f'{loop}_dataloader'] = cfg[f'{loop}_evaluator'] = cfg[f'{loop}_cfg'] = None
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1)
    cfg.default_hooks.logger.interval = 1
    cfg.work_dir, cfg.randomness = toy_cfg.work_dir, toy_cfg.randomness
    # pictures and the report hang on no backbone
    shown = dict(pictures=[], report=False)
    cfg.mix_and_match = dict(max_iters=2, images_per_batch=2, retrieval_images=0, **shown)
    return cfg


def walk_but_for(kinds: Iterable[str], names: Iterable[str]) -> list:
    """Names as parameters of a test; those that are not in `kinds` are of the walk of .ci/run."""
    assert {*kinds} <= {*names}
    marks = {True: (), False: (pytest.mark.walk,)}
    return [pytest.param(name, marks=marks[name in kinds], id=name) for name in names]


def small_step(step: dict, size: tuple) -> dict:
    """A transform of the user's at `size`; the toy labels start at 0, without a class to drop."""
    step = copy.deepcopy(step)
    for name in ('scale', 'crop_size', 'size'):
        if name in step:
            step[name] = size
    step.pop('reduce_zero_label', None)
    return step


def run_both_stages(cfg: Config, monkeypatch) -> None:
    """Two steps of tuning and one of fine-tuning.

    Checked: tuning changed the backbone, fine-tuning starts from exactly what was saved, every
    logged loss is finite, and the config is what it was.
    """
    seen: dict = {}
    plain_load = FineTuningRunner.load_or_resume

    def spy(runner):
        seen['start'] = hash_state_dict(runner.model.backbone.state_dict())
        plain_load(runner)

    monkeypatch.setattr(FineTuningRunner, 'load_or_resume', spy)
    losses: list[float] = []
    monkeypatch.setattr(BaseModel, 'parse_losses', recording(losses))
    before = cfg.pretty_text
    model = MixAndMatchRunner.from_cfg(cfg).train()
    assert cfg.pretty_text == before
    path = f'{cfg.work_dir}/tuning/tuned_backbone.pth'
    tuned = torch.load(path, weights_only=True)
    meta = tuned['meta']
    assert meta['hash_before'] != meta['hash_after']
    assert hash_state_dict(tuned['state_dict']) == meta['hash_after'] == seen['start']
    assert hash_state_dict(model.backbone.state_dict()) != seen['start']
    assert len(losses) == 3 and all(math.isfinite(loss) for loss in losses)


def check_gradients(cfg: Config) -> None:
    """One backward pass of stage one gives every parameter that trains a gradient, as DDP needs.

    Also where a rank has no node.
    """
    derived = derive_tuning_config(cfg)
    torch.manual_seed(0)
    model = MODELS.build(derived.model)
    model.train()
    height, width = derived.model.data_preprocessor.size or (SIZE, SIZE)
    labels = torch.arange(8) % 4
    points = torch.stack([labels // 2, labels * 9, labels * 7], dim=1)
    some = NodeBatch(torch.randn(2, 3, height, width), points, labels)
    none = NodeBatch(some.images[:0], points[:0], labels[:0])
    for batch in (some, none):
        model.zero_grad()
        loss = model(batch, [len(batch.labels)], mode='loss')['loss']
        assert torch.isfinite(loss)
        loss.backward()
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        assert trained and not [name for name, p in trained if p.grad is None]


def recording(losses: list[float]):
    """`parse_losses` that keeps the sum of each step."""
    plain = BaseModel.parse_losses

    def parse(self, found):
        total, logged = plain(self, found)
        losses.append(float(total))
        return total, logged

    return parse
