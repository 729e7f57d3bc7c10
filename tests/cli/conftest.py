"""A project with data of its own."""

import shutil

import pytest
from forking import forked_processes  # noqa: F401  a fixture


@pytest.fixture
def project(toy_cfg, demo_root, tmp_path):
    """A project with data of its own to spoil; returns (config path, data root, run)."""
    data = tmp_path / 'data'
    shutil.copytree(demo_root, data)
    for loader in ('train', 'val', 'test'):
        toy_cfg[f'{loader}_dataloader'].dataset.data_root = str(data)
    config = tmp_path / 'config.py'
    toy_cfg.train_cfg.max_iters = toy_cfg.train_cfg.val_interval = 1
    shown = dict(pictures=[], report=False)
    toy_cfg.mix_and_match = dict(max_iters=1, images_per_batch=2, retrieval_images=0, **shown)
    # not dump(), which lays the file out for a reader, for each test anew
    config.write_text('\n'.join(f'{key} = {value!r}' for key, value in toy_cfg.to_dict().items()))
    return config, data
