"""Running jobs: one process each, watched through what it prints."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from mm_tuning_plugin.benchmark.arms import Job
from mm_tuning_plugin.errors import UserError

ITERATION = re.compile(r'Iter\(train\)\s*\[\s*(\d+)/(\d+)\]')
STAGE = re.compile(r'stage (\d) of 2')
Progress = Callable[[str, int, int], None]
"""Called with (stage, iteration, iterations)."""


def run_job(job: Job, folder: Path, progress: Progress | None = None) -> dict:
    """Run one job, unless it is finished already.

    Args:
        job: What to run.
        folder: The job's own folder; gets ``config.py``, ``log.txt`` and the run itself.
        progress: Told of the job's progress.

    Returns:
        The job's ``stages.json``: seconds per stage, metrics, retrieval.

    Raises:
        UserError: The job failed: its last line.
    """
    done = folder / 'run' / 'stages.json'
    config = folder / 'config.py'
    text = job.cfg.pretty_text
    if done.is_file() and config.is_file() and config.read_text(encoding='utf-8') == text:
        return json.loads(done.read_text(encoding='utf-8'))
    folder.mkdir(parents=True, exist_ok=True)
    done.unlink(missing_ok=True)
    config.write_text(text, encoding='utf-8')
    command = [
        sys.executable, '-m', 'mm_tuning_plugin.cli.train', str(config),
        '--work-dir', str(folder / 'run'), '--overwrite',
    ]  # fmt: skip
    run_command(command, folder / 'log.txt', progress)
    return json.loads(done.read_text(encoding='utf-8'))


def run_command(command: Sequence[str], log: Path, progress: Progress | None = None) -> None:
    """Run a training command, keep what it prints, report its progress.

    Raises:
        UserError: It did not end with 0: its last line, and where its log is.
    """
    tail: deque[str] = deque(maxlen=1)
    stage = ''
    with (
        log.open('w', encoding='utf-8', buffering=1) as file,
        subprocess.Popen(
            list(command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding='utf-8',
            errors='replace',
            env={**os.environ, 'PYTHONUNBUFFERED': '1'},
        ) as process,
    ):
        for line in process.stdout or ():
            file.write(line)
            if line.strip():
                tail.append(line.strip())
            named, iteration = STAGE.search(line), ITERATION.search(line)
            stage = named.group(1) if named else stage
            if progress is not None and iteration:
                progress(stage, int(iteration.group(1)), int(iteration.group(2)))
    if process.returncode:
        reason = tail[-1] if tail else 'nothing was printed'
        raise UserError(f'{log}: the run ended with {process.returncode}: {reason}')
