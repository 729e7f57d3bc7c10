"""Proxies of the package: their configs train, resume to the bit, and fit what is fine-tuned."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import DATASETS, MODELS

from mm_tuning_plugin.checkpoint import load_backbone_checkpoint
from mm_tuning_plugin.cli.train import entry

CONFIGS = Path(__file__).parents[2] / 'configs'
FINE_TUNED = CONFIGS / 'camvid' / 'fcn_r18_camvid.py'
TASKS = ('colorization', 'jigsaw', 'rotation')


def train(task, root, folder, *argv, size='resnet18_camvid_cpu', **further):
    options = {
        'train_dataloader.dataset.data_root': root,
        'train_dataloader.batch_size': 2,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
        'train_cfg.max_iters': 2,
        'default_hooks.checkpoint.interval': 1,
        'default_hooks.checkpoint.max_keep_ckpts': 3,
        'default_hooks.logger.interval': 1,
        'randomness.seed': 3,
        **further,
    }
    pairs = [f'{key}={value}' for key, value in options.items()]
    config = CONFIGS / 'proxy' / f'{task}_{size}.py'
    return entry([str(config), '--work-dir', str(folder), *argv, '--cfg-options', *pairs])


def weights(path):
    return torch.load(path, weights_only=False)['state_dict']


@pytest.mark.parametrize('task', TASKS)
def test_a_checkpoint_fits_the_backbone_that_is_fine_tuned(task, demo_root, tmp_path):
    assert train(task, demo_root, tmp_path) == 0
    model = Config.fromfile(FINE_TUNED).model
    backbone = MODELS.build({**model.backbone, 'base_channels': 16, 'stem_channels': 16})
    report = load_backbone_checkpoint(backbone, tmp_path / 'iter_2.pth', min_matched=1)
    assert report.share == 1 and not report.missing and not report.unexpected
    saved = weights(tmp_path / 'iter_2.pth')
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, saved[f'backbone.{name}']), name
    moved = weights(tmp_path / 'iter_1.pth')['backbone.conv1.weight']
    assert not torch.equal(moved, backbone.conv1.weight)


def test_draws_go_on_where_a_jigsaw_was_stopped(demo_root, tmp_path):
    assert train('jigsaw', demo_root, tmp_path / 'whole', **{'train_cfg.max_iters': 3}) == 0
    assert train('jigsaw', demo_root, tmp_path / 'parts', **{'train_cfg.max_iters': 1}) == 0
    again = {'train_cfg.max_iters': 3}
    assert train('jigsaw', demo_root, tmp_path / 'parts', '--resume', **again) == 0
    whole, parts = (weights(tmp_path / name / 'iter_3.pth') for name in ('whole', 'parts'))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_list_of_names_restricts_the_images(demo_root, tmp_path, capsys):
    def read(name):
        names = tmp_path / 'names.txt'
        names.write_text(name)
        dataset = Config.fromfile(CONFIGS / 'proxy' / 'rotation_resnet18_camvid_cpu.py')
        dataset = dataset.train_dataloader.dataset
        dataset.update(data_root=str(demo_root), ann_file=str(names), pipeline=[])
        return [Path(info['img_path']).stem for info in DATASETS.build(dataset)]

    everything = sorted(path.stem for path in (Path(demo_root) / 'img' / 'train').glob('*.jpg'))
    assert read(f'{everything[2]}\n{everything[5]}\n') == [everything[2], everything[5]]
    options = {'train_dataloader.dataset.ann_file': tmp_path / 'none.txt'}
    assert train('rotation', demo_root, tmp_path / 'work', **options) == 2
    assert 'none.txt' in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize('task', TASKS)
def test_large_configs_read_their_last_level(task, imported):
    cfg = Config.fromfile(CONFIGS / 'proxy' / f'{task}_resnet50_camvid.py')
    model = MODELS.build(cfg.model)
    side = cfg.train_pipeline[2].crop_size[0]
    images = torch.randint(256, (1, 3, side, side), dtype=torch.uint8)
    batch = model.data_preprocessor({'inputs': images})
    with torch.no_grad():
        losses = model(**batch, mode='loss')
    assert all(value.isfinite() for value in losses.values())
    assert cfg.default_scope == 'mmseg' and cfg.train_cfg.max_iters == cfg.param_scheduler[-1].end


@pytest.mark.parametrize(
    'argv', [['--ssl-checkpoint', 'a.pth'], ['--no-tuning'], ['--overwrite'], ['--allow-pickle']]
)
def test_options_of_fine_tuning_are_refused(argv, demo_root, tmp_path, capsys):
    assert train('rotation', demo_root, tmp_path, *argv) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f'error: {argv[0]}: ') and 'RotationModel' in line


def test_an_image_without_room_for_the_tiles_is_one_line(demo_root, tmp_path, capsys):
    options = {'model.data_preprocessor.tile_size': 41}
    assert train('jigsaw', demo_root, tmp_path, **options) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert '120 x 120' in line and ' 123' in line
