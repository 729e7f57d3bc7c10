"""The option bn_crops, through a real stage one run by a stock Runner."""

import copy
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mistakes import mistake
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, MODELS

from mm_tuning_plugin.datasets.wrappers import random_state
from mm_tuning_plugin.engine import derive_tuning_config, resolve_options
from mm_tuning_plugin.engine.config import user_config
from mm_tuning_plugin.engine.reuse.fingerprint import differences, fingerprint

CROPS, BATCH, SEED = 5, 2, 7


@DATASETS.register_module(force=True)
class DrawingDataset(BaseSegDataset):
    """A data set that draws random numbers as it is built."""

    def full_init(self):
        random.random(), np.random.rand(), torch.rand(1)
        super().full_init()


@pytest.fixture(params=['points', 'patches'])
def cfg(toy_cfg, request):
    toy_cfg.mix_and_match.update(
        nodes=request.param, size_range=(16, 32), patch_size=32, max_iters=2, retrieval_images=0
    )
    toy_cfg.train_dataloader.dataset.type = 'DrawingDataset'
    if request.param == 'patches':  # crops as large as the images, padded for fine-tuning
        toy_cfg.train_dataloader.dataset.pipeline[2].crop_size = (80, 96)
        toy_cfg.model.data_preprocessor.size = (80, 96)
    return toy_cfg


def tune(cfg, tmp_path, name, crops):
    """Run the written config alone; the tuned weights, and what the random states draw next."""
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = str(tmp_path / name)
    cfg.mix_and_match.bn_crops = crops
    path = tmp_path / f'{name}.py'
    derive_tuning_config(cfg).dump(path)
    runner = Runner.from_cfg(Config.fromfile(path))
    runner.train()
    drawn = random.random(), np.random.rand(), torch.rand(1).item()
    saved = torch.load(f'{cfg.work_dir}/tuning/tuned_backbone.pth', weights_only=True)
    return saved['state_dict'], drawn


def crops_as_fine_tuning_draws_them(cfg):
    """The user's own pipeline, nothing derived; normalised and padded by hand. (CROPS, 3, H, W)."""
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(SEED))
        images = []
        for position in range(CROPS):
            with random_state(SEED, position):
                images.append(dataset[int(order[position])]['inputs'].double())
    settings = cfg.model.data_preprocessor
    mean, std = (torch.tensor(settings[k]).double()[:, None, None] for k in ('mean', 'std'))
    crops = torch.zeros(CROPS, 3, *settings['size']).double()
    for crop, image in zip(crops, images):
        crop[:, : image.shape[1], : image.shape[2]] = (image.flip(0) - mean) / std
    return crops


def by_plain_loop(cfg, weights, crops):
    with DefaultScope.overwrite_default_scope('mmseg'):
        backbone = MODELS.build(cfg.model.backbone).double()
    backbone.load_state_dict(weights)
    backbone.train()
    layers = {n: m for n, m in backbone.named_modules() if hasattr(m, 'running_mean')}
    entered, sums = {}, dict.fromkeys(layers, 0.0)
    for name, module in layers.items():
        module.register_forward_pre_hook(
            lambda module, inputs, name=name: entered.update({name: inputs[0]})
        )
    for start in range(0, CROPS, BATCH):
        batch = crops[start : start + BATCH]
        with torch.no_grad():
            backbone(batch)
        for name, x in entered.items():
            flat = x.transpose(0, 1).flatten(1)
            statistics = torch.stack([flat.mean(1), flat.var(1, unbiased=True)])
            sums[name] = sums[name] + len(batch) * statistics / CROPS
    return sums


def test_the_tuned_file_has_the_statistics_of_the_crops(cfg, tmp_path):
    plain, drawn = tune(cfg, tmp_path, 'plain', 0)
    estimated, drawn_behind = tune(cfg, tmp_path, 'estimated', CROPS)
    assert drawn == drawn_behind, 'no random state of the run moves'
    expected = by_plain_loop(cfg, estimated, crops_as_fine_tuning_draws_them(cfg))
    for name, value in estimated.items():
        layer, _, kind = name.rpartition('.')
        if kind in ('running_mean', 'running_var'):
            reference = expected[layer][('running_mean', 'running_var').index(kind)]
            assert torch.allclose(value.double(), reference, rtol=1e-4, atol=1e-5), name
            assert not torch.allclose(value, plain[name], rtol=1e-2, atol=1e-3), name
        else:
            assert torch.equal(value, plain[name]), name


def test_crops_keep_the_transforms_that_tuning_drops(toy_cfg):
    toy_cfg.mix_and_match.update(nodes='patches', bn_crops=64)
    toy_cfg.train_dataloader.dataset.pipeline.insert(-1, dict(type='PhotoMetricDistortion'))
    derived = derive_tuning_config(toy_cfg)
    (hook,) = [h for h in derived.custom_hooks if 'num_crops' in h]
    kinds = [step.type.rsplit('.')[-1] for step in hook.dataset.dataset.pipeline]
    assert kinds == [
        'LoadImageFromFile', 'LoadAnnotations', 'CheckLabels', 'RandomCrop', 'RandomFlip',
        'PhotoMetricDistortion', 'SamplePoints', 'PackNodeInputs',
    ]  # fmt: skip
    assert (hook.num_crops, hook.batch_size, hook.seed, hook.size) == (64, 2, 7, [48, 48])
    kinds = [hook.type.rsplit('.')[-1] for hook in derived.custom_hooks]
    assert kinds.index('EstimateBatchNormHook') < kinds.index('SaveBackboneHook')
    toy_cfg.mix_and_match.bn_crops = 0
    assert not [h for h in derive_tuning_config(toy_cfg).custom_hooks if 'num_crops' in h]


def test_a_backbone_without_such_layers_is_told(toy_cfg):
    toy_cfg.mix_and_match.update(max_iters=1, retrieval_images=0, images_per_batch=2, bn_crops=2)
    toy_cfg.model.backbone.norm_eval = True
    Runner.from_cfg(derive_tuning_config(toy_cfg)).train()
    (log,) = Path(toy_cfg.work_dir, 'tuning').glob('*/*.log')
    assert re.search(r'WARNING - bn_crops: 2\b.*BatchNorm', log.read_text())


def test_a_share_for_every_rank(toy_cfg, monkeypatch):
    monkeypatch.setattr(user_config, 'get_world_size', lambda: 4)
    toy_cfg.mix_and_match.bn_crops = 8
    (hook,) = [h for h in derive_tuning_config(toy_cfg).custom_hooks if 'num_crops' in h]
    assert hook.num_crops == 8
    toy_cfg.mix_and_match.bn_crops = 10
    with mistake('mix_and_match.bn_crops', '10', '4'):
        derive_tuning_config(toy_cfg)


def test_it_counts_for_the_fingerprint(toy_cfg):
    def print_of(**options):
        changed = copy.deepcopy(toy_cfg)
        changed.train_dataloader.batch_size = options.pop('batch_size', 2)
        changed.mix_and_match.update(options)
        derived = derive_tuning_config(changed)
        return fingerprint(derived, resolve_options(changed.mix_and_match), 'data')

    plain, with_crops = print_of(), print_of(bn_crops=8)
    assert 'num_crops was None and is now 8' in differences(plain, with_crops, most=20)
    assert 'num_crops' in differences(with_crops, print_of(bn_crops=9))
    assert 'batch_size' in differences(with_crops, print_of(bn_crops=8, batch_size=4))
    assert not differences(plain, print_of(batch_size=4)), 'fine-tuning alone reads it then'
    assert not [key for key in plain if 'batch_norm' in key or 'bn_crops' in key]
    assert 'chunk_size' in differences(plain, print_of(chunk_size=2))
