"""``find_unused_parameters=False``: stage one over two ranks uses every parameter at every step."""

import copy
import os

import pytest
import torch
import torch.distributed as dist
from gloo import end_group, start_ranks
from mmengine.config import Config
from mmengine.runner import Runner

from mm_tuning_plugin.engine import derive_tuning_config

SWIN = dict(
    type='SwinTransformer', embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2),
    window_size=4, pretrain_img_size=64,
)  # fmt: skip
VIT = dict(
    type='VisionTransformer', img_size=48, patch_size=16, embed_dims=16, num_layers=3, num_heads=2,
    out_indices=(0, 1, 2),
)  # fmt: skip
# name: backbone (None: the ResNet of the config, all four outputs), level that the head reads,
# further options
CASES = {
    'resnet': (None, 1, {}),
    'swin': (SWIN, 1, {}),
    'vit': (VIT, 0, {}),
    'chunks and statistics': (None, 2, dict(chunk_size=1, bn_crops=4)),
    'patches': (None, 3, dict(nodes='patches', size_range=(16, 32), patch_size=64, chunk_size=8)),
}


def work(rank, world_size, folder):
    torch.set_num_threads(1)
    os.environ['LOCAL_RANK'] = str(rank)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/init', rank=rank, world_size=world_size
    )
    for number, (name, (backbone, level, options)) in enumerate(CASES.items()):
        cfg = Config.fromfile(f'{folder}/config.py')
        cfg.work_dir = f'{folder}/{number}'
        if backbone is not None:
            cfg.model.backbone = copy.deepcopy(backbone)
        cfg.model.decode_head.in_index = level
        cfg.mix_and_match.update(max_iters=2, retrieval_images=0, **options)
        derived = derive_tuning_config(cfg)
        assert derived.find_unused_parameters is False
        assert derived.train_dataloader.batch_size == 2
        runner = Runner.from_cfg(derived)
        model = runner.model
        assert isinstance(model, torch.nn.parallel.DistributedDataParallel)
        assert not model.find_unused_parameters
        runner.train()
        assert runner.iter == 2, name
        torch.save(model.module.backbone.state_dict(), f'{folder}/{number}/rank{rank}.pth')
    end_group()


@pytest.fixture
def cfg_of_ranks(toy_cfg):
    toy_cfg.update(
        launcher='pytorch',
        find_unused_parameters=False,
        model_wrapper_cfg=dict(
            type='MMDistributedDataParallel',
            device_ids=None,  # CPUs have none
            broadcast_buffers=False,
            find_unused_parameters=False,
        ),
    )
    return toy_cfg


@pytest.mark.filterwarnings('ignore')
def test_two_steps_over_two_ranks(cfg_of_ranks, tmp_path):
    cfg_of_ranks.dump(tmp_path / 'config.py')
    start_ranks(work, 2, str(tmp_path))
    for number, name in enumerate(CASES):
        saved = torch.load(tmp_path / f'{number}/tuning/tuned_backbone.pth', weights_only=True)
        ranks = [torch.load(tmp_path / f'{number}/rank{rank}.pth') for rank in range(2)]
        for key, value in saved['state_dict'].items():
            assert torch.equal(value, ranks[0][key]), (name, key)
            # without SyncBN every rank has running statistics of its own, until they are estimated
            if 'running' not in key or 'statistics' in name:
                assert torch.equal(ranks[0][key], ranks[1][key]), (name, key)
