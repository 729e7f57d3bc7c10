import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from html_page import Page
from mistakes import check_mistake, mistake

from mm_tuning_plugin.cli.report import entry
from mm_tuning_plugin.engine import MixAndMatchRunner
from mm_tuning_plugin.engine.config.options import PICTURES
from mm_tuning_plugin.engine.pictures.captions import CAPTIONS, captioned
from mm_tuning_plugin.engine.report.run_report import write_report
from mm_tuning_plugin.engine.report.scalars import read_scalars


def parsed(path):
    page = Page(path.read_text())
    assert not page.open and len(set(page.ids)) == len(page.ids)
    return page


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """The folder in which both runs are made once."""
    return tmp_path_factory.mktemp('made')


@pytest.fixture
def runs(toy_cfg, tmp_path, made):
    """A tuned run with a picture, and a baseline, of classes whose names are markup; copies."""
    if not (made / 'tuned').exists():
        train_both(toy_cfg, made)
    return {name: Path(shutil.copytree(made / name, tmp_path / name)) for name in RUNS}


RUNS = {'plain': False, 'tuned': True}


def train_both(toy_cfg, folder):
    for split in ('train', 'val'):
        dataset = toy_cfg[f'{split}_dataloader']['dataset']
        classes = list(dataset['metainfo']['classes'])
        dataset['metainfo']['classes'] = ['<b>sky & sea', *classes[1:]]
    toy_cfg['val_evaluator'] = dict(type='IoUMetric', iou_metrics=['mIoU'])
    for name, enabled in RUNS.items():
        cfg = toy_cfg.copy()
        cfg['work_dir'] = str(folder / name)
        cfg['mix_and_match'] = dict(
            enabled=enabled, max_iters=2, images_per_batch=2, retrieval_images=4
        )
        if enabled:
            cfg['mix_and_match']['compare'] = str(folder / 'plain')
        MixAndMatchRunner.from_cfg(cfg).train()


def test_a_run_ends_with_its_report(runs):
    text = (runs['tuned'] / 'report.html').read_text()
    page = parsed(runs['tuned'] / 'report.html')
    shown = ' '.join(page.text)
    stages = json.loads((runs['tuned'] / 'stages.json').read_text())
    assert f'{stages["fine_tuning"]["metrics"]["mIoU"]:.2f}' in shown
    assert '<b>sky & sea' in shown and '<b>sky' not in text  # as text, not as an element
    assert 'IoU in plain' in shown and 'recall@1 of nodes, iteration 2' in shown
    assert 'mm_tuning_plugin.SamplePoints' in shown  # the config of stage one
    assert 'pytest' in shown  # the command
    assert 'src="http' not in text and '<script' not in text
    assert 'IoU in plain' not in (runs['plain'] / 'report.html').read_text()


def test_classes_are_what_mmseg_measured(runs):
    for folder in runs.values():
        written = json.loads((folder / 'class_iou.json').read_text())
        known = [value for value in written['iou'] if value is not None]
        metrics = json.loads((folder / 'stages.json').read_text())['fine_tuning']['metrics']
        assert np.mean(known) == pytest.approx(metrics['mIoU'], abs=0.011)
        assert written['iteration'] == 4 and len(written['iou']) == len(written['classes']) == 8


def test_it_is_made_again_from_files_beside_another_run(runs):
    folder = runs['tuned'] / 'tuning' / 'pictures'
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / 'mosaic_2.png'), np.zeros((4, 4, 3), np.uint8))
    assert entry([str(runs['tuned']), '--compare', str(runs['plain'])]) == 0
    text = (runs['tuned'] / 'report.html').read_text()
    assert len(re.findall('src="data:image/png;base64,', text)) >= 1
    assert 'The batch that follows iteration 2' in text
    assert entry([str(runs['plain'])]) == 0
    assert entry([str(runs['tuned']), '--compare', str(folder)]) == 2  # of no run


def test_a_folder_of_no_run_is_one_line(tmp_path, capsys, toy_cfg):
    assert entry([str(tmp_path / 'none')]) == 2
    line = capsys.readouterr().err.splitlines()[-1].removeprefix('error: ')
    check_mistake(line, str(tmp_path / 'none'), 'stages.json', 'work_dir')
    toy_cfg['mix_and_match'] = dict(compare=str(tmp_path))
    with mistake(str(tmp_path), 'stages.json', 'work_dir'):  # before anything is trained
        MixAndMatchRunner.from_cfg(toy_cfg).train()
    assert not list(Path(toy_cfg['work_dir']).glob('*.pth'))


def test_a_report_that_fails_does_not_fail_the_run(toy_cfg, monkeypatch, caplog):
    from mm_tuning_plugin.engine import runner

    def broken(*_):
        raise OSError('no space')

    monkeypatch.setattr(runner, 'write_report', broken)
    toy_cfg['mix_and_match'] = dict(enabled=False)
    MixAndMatchRunner.from_cfg(toy_cfg).train()
    assert not (Path(toy_cfg['work_dir']) / 'report.html').exists()


def test_scalars_of_a_resumed_run_come_together(tmp_path):
    for when, lines in (
        ('20260101_000001', ['{"loss": 3.0, "step": 1}', '{"loss": 2.0, "step": 2}', '{"lo']),
        ('20260101_000002', ['{"loss": 1.5, "step": 2}', '{"loss": 1.0, "step": 3}']),
    ):
        folder = tmp_path / when / 'vis_data'
        folder.mkdir(parents=True)
        (folder / 'scalars.json').write_text('\n'.join(lines))
    assert read_scalars(tmp_path) == {'loss': {1: 3.0, 2: 1.5, 3: 1.0}}


def test_a_damaged_file_leaves_its_section_out(runs):
    (runs['tuned'] / 'class_iou.json').write_text('{')
    text = write_report(runs['tuned']).read_text()
    assert '<h2>Classes</h2>' not in text and '<h2>Outcome</h2>' in text


def test_pictures_stand_in_the_order_of_their_story(tmp_path):
    names = [
        'similarity_1000', 'mosaic_1000', 'mosaic_500', 'mine_1', 'embedding_1000', 'tsne_1000',
        'gallery_1000', 'gallery_500', 'mosaic', 'mosaic_0',
    ]  # fmt: skip
    for name in names:
        (tmp_path / f'{name}.png').touch()
    (tmp_path / 'before_tuning.npz').touch()
    shown = captioned(tmp_path)
    assert [file.stem for file, _ in shown] == [
        'mosaic_0', 'mosaic_500', 'mosaic_1000', 'embedding_1000', 'tsne_1000', 'gallery_500',
        'gallery_1000', 'similarity_1000', 'mine_1', 'mosaic',
    ]  # fmt: skip
    captions = dict(shown)
    assert captions[tmp_path / 'mine_1.png'] == 'mine 1'
    told = captions[tmp_path / 'gallery_500.png']
    assert told.startswith('Gallery. ') and 'after 500 iterations' in told
    assert CAPTIONS.keys() == set(PICTURES)
    assert captioned(tmp_path / 'none') == []
