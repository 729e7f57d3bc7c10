"""The documentation builds as a site, without a warning."""

import os
import subprocess
import sys

from blocks import ROOT


def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', str(tmp_path)]
    env = {**os.environ, 'NO_MKDOCS_2_WARNING': '1'}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'WARNING' not in done.stderr
    text = (tmp_path / 'index.html').read_text()
    assert 'src="http' not in text and 'fonts.googleapis' not in text
    assert 'triplet_margin_loss' in (tmp_path / 'api.html').read_text()
