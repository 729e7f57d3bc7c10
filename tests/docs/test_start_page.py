"""Follows docs/start.md from top to bottom, as its reader would."""

import os
import shutil
import subprocess
import sys

from blocks import ROOT, blocks, commands

SCENES = "write_demo_dataset('data/demo', image_size=96, num_unlabelled=0, num_train=8, num_val=4)"


def test_the_page_ends_with_both_runs_and_a_plan(tmp_path):
    for name in ('configs', 'tools'):
        shutil.copytree(ROOT / name, tmp_path / name)
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    for block in [b for b in blocks('sh', 'python') if b.page == 'docs/start.md']:
        if block.language == 'python':
            (tmp_path / block.title).write_text(block.code)
            continue
        for words in commands(block.code):
            if words[0] == 'pip':
                continue
            # fewer and smaller scenes than the page has, or it would take minutes
            words = [w.replace("write_demo_dataset('data/demo')", SCENES) for w in words]
            done = subprocess.run(
                [sys.executable, *words[1:]], cwd=tmp_path, env=env, capture_output=True, text=True
            )
            assert done.returncode == 0, (words, done.stderr[-2000:])
    assert (tmp_path / 'work_dirs/tuned/tuning/tuned_backbone.pth').is_file()
    for run in ('tuned', 'plain'):
        assert list((tmp_path / 'work_dirs' / run).glob('iter_20.pth'))
