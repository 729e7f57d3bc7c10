"""A new-style config, whose types are classes, from the doctor's trial to what is written of it."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from new_style import write_new_style

from mm_tuning_plugin.checkpoint import read_backbone
from mm_tuning_plugin.cli.common import trial_run
from mm_tuning_plugin.engine.common.files import TUNED_BACKBONE


@pytest.fixture
def tried(toy_cfg, tmp_path, monkeypatch):
    """Runs two steps of both stages of a config file; returns the folder of the run."""
    monkeypatch.chdir(tmp_path)

    def run(path):
        trial_run.main([path.name, '--work-dir', f'run of {path.stem}'])
        return Path(f'run of {path.stem}')

    return run


def read(path):
    return json.loads(path.read_text(encoding='utf-8'))


def test_it_runs_as_the_same_config_of_names_does(toy_cfg, tried, tmp_path):
    toy_cfg.pop('work_dir')
    # as long as the trial, so that what was written runs as it did
    toy_cfg.mix_and_match.update(max_iters=2, retrieval_images=0, report=True)
    toy_cfg.train_cfg.max_iters = toy_cfg.train_cfg.val_interval = 2
    toy_cfg.dump(tmp_path / 'names.py')
    runs = tried(tmp_path / 'names.py'), tried(write_new_style(toy_cfg, tmp_path / 'classes.py'))
    hashes = [read_backbone(run / 'tuning' / TUNED_BACKBONE)[1]['hash_after'] for run in runs]
    assert hashes[0] == hashes[1]
    prints = [read(run / 'tuning' / 'fingerprint.json') for run in runs]
    assert prints[0] == prints[1] and prints[0]['backbone.type'] == 'ResNet'
    metrics = [read(run / 'stages.json')['fine_tuning']['metrics'] for run in runs]
    assert metrics[0] == metrics[1]
    assert '&lt;class' not in (runs[1] / 'report.html').read_text(encoding='utf-8')
    run_what_was_written(runs[1], hashes[0])


def run_what_was_written(folder, tuned):
    """All configs that a run left are read; ours, and mmengine's dump of stage two, run alone."""
    tuning, fine_tuning = folder / 'tuning' / 'tuning_config.py', folder / 'classes.py'
    for path in folder.rglob('*.py'):
        own = fine_tuning if path.is_relative_to(folder) and 'tuning' not in path.parts else tuning
        assert Config.fromfile(path).to_dict() == Config.fromfile(own).to_dict()
    for path in (tuning, fine_tuning):
        cfg = Config.fromfile(path)
        cfg.work_dir = f'{path.stem} again'
        Runner.from_cfg(cfg).train()
    again = read_backbone(Path('tuning_config again', TUNED_BACKBONE))[1]
    assert again['hash_after'] == tuned
