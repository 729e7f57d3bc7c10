"""What a run must know again when it is resumed: its name and its seed."""

from __future__ import annotations

import copy
import json
import uuid
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process, sync_random_seed

from mm_tuning_plugin.atomic_write import write_json
from mm_tuning_plugin.config_types import PlainConfig
from mm_tuning_plugin.engine.common.messages import warn

FILE = 'run.json'


class RunRecord(NamedTuple):
    """One run of both stages, however often it was interrupted.

    Attributes:
        id: Its checkpoints carry it, so that those of an earlier run in the same folder are not
            taken for them; None: unknown.
        seed: Of all random numbers of both stages, if the config gives none.
    """

    id: str | None
    seed: int


def begin_or_resume(work_dir: Path, resume: bool) -> RunRecord:
    """Draw what a new run needs and write it down, or read it again; the same on every rank.

    Args:
        work_dir: Folder of the run.
        resume: Whether a run recorded there continues.
    """
    drawn = RunRecord(uuid.uuid4().hex, sync_random_seed())
    records = [drawn]
    if is_main_process():
        path = work_dir / FILE
        known = _read(path) if resume else None
        if known is None:
            if resume and any(work_dir.glob('*.pth')):
                drawn = drawn._replace(id=None)  # begun by another program, or not known any more
            write_json(path, drawn._asdict())
        records = [known or drawn]
    broadcast_object_list(records)
    return RunRecord(*records[0])


def with_seed(cfg: Config, seed: int) -> Config:
    """The config itself if it has a seed, otherwise a copy with this one."""
    randomness: PlainConfig = dict(cfg.get('randomness') or {})
    if randomness.get('seed') is not None:
        return cfg
    copied = copy.deepcopy(cfg)
    copied['randomness'] = {**randomness, 'seed': seed}
    return copied


def _read(path: Path) -> RunRecord | None:
    if not path.is_file():
        return None
    try:
        return RunRecord(**json.loads(path.read_text(encoding='utf-8')))
    except (ValueError, TypeError):
        warn(f'{path}: damaged; expected id and seed of the run: they are drawn anew')
        return None
