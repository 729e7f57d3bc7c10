"""mmpretrain's self-supervised models on the package's configs: they train, and are loaded."""

from pathlib import Path

import pytest
import torch
from mistakes import check_mistake
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS
from stubbed import stubbed_torchvision

from mm_tuning_plugin.checkpoint import load_backbone_checkpoint
from mm_tuning_plugin.cli.train import entry

PROXIES = Path(__file__).parents[2] / 'configs' / 'proxy'
FULL_SIZE = [p for p in PROXIES.glob('*.py') if 'mmpretrain' in p.read_text(encoding='utf-8')]
RESNET = dict(type='mmseg.ResNet', depth=18, base_channels=8, stem_channels=8)
VIT = dict(img_size=(32, 32), patch_size=16, embed_dims=16, num_layers=2, num_heads=2, mlp_ratio=2)
CHANNELS = {
    'MoCo': dict(in_channels=64, hid_channels=16),
    'DenseCL': dict(in_channels=64, hid_channels=16),
    'SimSiam': dict(in_channels=64, hid_channels=16, out_channels=16),
}


@pytest.fixture(scope='module', autouse=True)
def mmpretrain(imported):
    try:
        with stubbed_torchvision():
            import mmpretrain.datasets
            import mmpretrain.engine
            import mmpretrain.models
            import mmpretrain.visualization  # noqa: F401
    except ImportError as error:
        pytest.skip(f'mmpretrain cannot be imported: {error}')


def toy(name, root, folder):
    """A config with a small network and image, two iterations."""
    cfg = Config.fromfile(PROXIES / f'{name}_camvid.py')
    kind, model = cfg.model.type, cfg.model
    if kind == 'MAE':
        arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
        model.backbone.update(arch=arch, img_size=32)
        model.neck.update(num_patches=4, embed_dim=16, decoder_embed_dim=16, decoder_depth=1)
        cfg.train_pipeline[1].scale = 32
    else:
        model.backbone.update(depth=18, base_channels=8, stem_channels=8)
        model.neck.update(CHANNELS[kind])
        cfg.view_pipeline[0].scale = 64
        cfg.train_pipeline[1].transforms = [cfg.view_pipeline]
    if kind == 'SimSiam':
        model.head.predictor.update(in_channels=16, hid_channels=8, out_channels=16)
    if 'queue_len' in model:
        model.queue_len = 8
    cfg.train_dataloader.update(batch_size=4, num_workers=0, persistent_workers=False)
    cfg.train_dataloader.dataset.update(data_root=str(root), pipeline=cfg.train_pipeline)
    cfg.train_cfg.max_iters = 2
    cfg.default_hooks.checkpoint.interval = cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.checkpoint.max_keep_ckpts = 2
    path = folder / 'toy.py'
    cfg.dump(path)
    return str(path)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', ['mocov2_resnet50', 'densecl_resnet50', 'simsiam_resnet50'])
def test_contrastive_models_train_and_their_query_network_is_loaded(name, demo_root, tmp_path):
    assert entry([toy(name, demo_root, tmp_path), '--work-dir', str(tmp_path)]) == 0
    backbone = MODELS.build(RESNET)
    check_loaded(backbone, tmp_path, 'conv1.weight')


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('kind', ['VisionTransformer', 'MAE'])
def test_mae_trains_and_is_loaded(kind, demo_root, tmp_path):
    argv = [toy('mae_vit-small', demo_root, tmp_path), '--work-dir', str(tmp_path)]
    # warm-up begins at 1e-4 of the rate: its two steps would be below the precision of a weight
    assert entry([*argv, '--cfg-options', 'param_scheduler=[]']) == 0
    own = dict(patch_bias=True, final_norm=True) if kind == 'VisionTransformer' else {}
    backbone = MODELS.build(dict(type=f'mmseg.{kind}', **VIT, **own))
    check_loaded(backbone, tmp_path, 'layers.1.ln1.weight')


def check_loaded(backbone, folder, name):
    report = load_backbone_checkpoint(backbone, folder / 'iter_2.pth', min_matched=1)
    assert report.share == 1
    assert not set(report.missing) & {parameter for parameter, _ in backbone.named_parameters()}
    first, second = (
        torch.load(folder / f'iter_{i}.pth', weights_only=False)['state_dict'] for i in (1, 2)
    )
    trained = second[f'backbone.{name}']
    assert not torch.equal(first[f'backbone.{name}'], trained)
    assert torch.equal(backbone.state_dict()[name], trained)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('path', FULL_SIZE, ids=lambda path: path.stem)
def test_full_size_models_have_parts_that_fit(path):
    cfg = Config.fromfile(path)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
    views = [torch.rand(2, 3, 64, 64) for _ in range(2)]
    with torch.no_grad():
        inputs = torch.rand(2, 3, 224, 224) if cfg.model.type == 'MAE' else views
        losses = model(inputs, [], mode='loss')
    assert losses and all(value.isfinite() for value in losses.values())
    if 'queue_len' in cfg.model:
        assert cfg.model.queue_len % cfg.train_dataloader.batch_size == 0
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[-1].end


def test_without_mmpretrain_it_is_one_line(demo_root, tmp_path, monkeypatch, capsys):
    from mm_tuning_plugin.cli import train

    monkeypatch.setattr(train, 'import_error', lambda name: f'no {name}')
    config = toy('mocov2_resnet50', demo_root, tmp_path)
    assert entry([config, '--work-dir', str(tmp_path)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    check_mistake(line.removeprefix('error: '), config, '(no mmpretrain.models)', 'mmseg')
