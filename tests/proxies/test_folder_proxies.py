"""Proxies of any folder of images: they train, their weights fit, and mistakes are one line."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mistakes import check_mistake, mistake
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS, MODELS

from mm_tuning_plugin.checkpoint import load_backbone_checkpoint
from mm_tuning_plugin.cli.train import entry

CONFIGS = Path(__file__).parents[2] / 'configs' / 'proxy'
TASKS = ('colorization', 'hue-chroma', 'jigsaw', 'rotation')
SIZES = {'a.jpg': (200, 300), 'b.PNG': (90, 80), 'sub/c.jpeg': (40, 130), 'sub/grey.tif': (64, 64)}


@pytest.fixture(autouse=True)
def few_threads():
    torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    root = tmp_path / 'images'
    (root / 'sub').mkdir(parents=True)
    (root / 'notes.txt').write_text('no image')
    for name, (height, width) in SIZES.items():
        image = cv2.resize(random.integers(0, 256, (5, 7, 3), np.uint8), (width, height))
        cv2.imwrite(str(root / name), image[..., 0] if 'grey' in name else image)
    return root


def train(task, root, work_dir, *further, argv=()):
    options = [
        f'train_dataloader.dataset.data_root={root}', 'train_dataloader.batch_size=2',
        'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
        'train_cfg.max_iters=2', *further,
    ]  # fmt: skip
    config = CONFIGS / f'{task}_resnet18_folder_cpu.py'
    return entry([str(config), '--work-dir', str(work_dir), *argv, '--cfg-options', *options])


def build(root, **options):
    config = {'type': 'mm_tuning_plugin.UnlabelledFolder', 'data_root': root, 'pipeline': []}
    return DATASETS.build({**config, **options})


@pytest.mark.parametrize('task', TASKS)
def test_trains_on_a_folder_and_its_weights_fit(task, folder, tmp_path):
    assert train(task, folder, tmp_path / 'work') == 0
    model = Config.fromfile(CONFIGS / f'{task}_resnet18_folder_cpu.py').model
    backbone = MODELS.build(model.backbone)
    path = tmp_path / 'work' / 'iter_2.pth'
    report = load_backbone_checkpoint(backbone, path, min_matched=1)
    assert report.share == 1 and not report.missing and not report.unexpected


def test_points_go_on_where_hue_and_chroma_were_stopped(folder, tmp_path):
    def run(name, iterations, *argv):
        options = ('randomness.seed=3', 'default_hooks.checkpoint.interval=1')
        options += (f'train_cfg.max_iters={iterations}',)
        assert train('hue-chroma', folder, tmp_path / name, *options, argv=argv) == 0

    run('whole', 3)
    run('parts', 1)
    run('parts', 3, '--resume')
    whole, parts = (
        torch.load(tmp_path / name / 'iter_3.pth', weights_only=False)['state_dict']
        for name in ('whole', 'parts')
    )
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_grey_weights_fit_a_backbone_of_colour(folder, tmp_path):
    assert train('hue-chroma', folder, tmp_path / 'work') == 0
    model = Config.fromfile(CONFIGS / 'colorization_resnet18_folder_cpu.py').model
    backbone = MODELS.build(model.backbone)
    load_backbone_checkpoint(backbone, tmp_path / 'work' / 'iter_2.pth', min_matched=1)
    state = torch.load(tmp_path / 'work' / 'iter_2.pth', weights_only=False)['state_dict']
    assert torch.allclose(backbone.conv1.weight.sum(1, True), state['backbone.conv1.weight'])


def test_the_folder_comes_from_the_environment(folder, monkeypatch, imported):
    monkeypatch.setenv('IMAGE_FOLDER', str(folder))
    for path in sorted(CONFIGS.glob('*_folder*.py')):
        dataset = Config.fromfile(path).train_dataloader.dataset
        assert dataset.data_root == str(folder)
        with DefaultScope.overwrite_default_scope('mmseg'):
            assert len(DATASETS.build(dataset)) == len(SIZES)


@pytest.mark.parametrize('task', TASKS)
def test_large_configs_build_and_read_their_levels(task, folder, monkeypatch, imported):
    monkeypatch.setenv('IMAGE_FOLDER', str(folder))
    cfg = Config.fromfile(CONFIGS / f'{task}_resnet50_folder.py')
    side = cfg.train_pipeline[2].crop_size[0]
    with DefaultScope.overwrite_default_scope('mmseg'):
        sample = DATASETS.build(cfg.train_dataloader.dataset)[2]['inputs']
    assert tuple(sample.shape) == (3, side, side)
    model = MODELS.build(cfg.model)
    with torch.no_grad():
        losses = model(**model.data_preprocessor({'inputs': [sample]}), mode='loss')
    assert all(value.isfinite() for value in losses.values())


def test_finds_images_of_any_suffix_below_the_folder(folder):
    found = [Path(info['img_path']).relative_to(folder).as_posix() for info in build(folder)]
    assert found == sorted(SIZES)


def test_a_missing_or_empty_folder_is_one_line(folder, tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    with mistake('data_root', str(tmp_path / 'empty'), '.jpg'):
        build(tmp_path / 'empty')
    assert train('jigsaw', tmp_path / 'none', tmp_path / 'work') == 2
    line = capsys.readouterr().err.splitlines()[-1]
    check_mistake(line.removeprefix('error: '), 'data_root', str(tmp_path / 'none'), 'folder')


def test_a_damaged_image_is_named(folder):
    (folder / 'z.jpg').write_text('broken')
    dataset = build(folder, pipeline=[{'type': 'LoadImageFromFile'}])
    assert dataset[0]['img'].shape == (200, 300, 3)
    with mistake(str(folder / 'z.jpg'), 'Error', 'OpenCV'):
        dataset[len(SIZES)]


@pytest.mark.parametrize(
    ('task', 'option', 'facts'),
    [
        ('jigsaw', 'model.data_preprocessor.tile_size=41', ['120 x 120']),
        ('rotation', 'model.backbone.in_channels=1', ['ResNet', ' 1 ']),
        ('hue-chroma', 'model.head=linear', ['head: ', 'hypercolumn, convolutional']),
    ],
)
def test_wrong_options_are_one_line(task, option, facts, folder, tmp_path, capsys):
    assert train(task, folder, tmp_path / 'work', option) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith('error: ')
    assert all(fact in line for fact in facts)
