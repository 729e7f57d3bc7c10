"""What a tuning leaves in its folder: whether it is whole, what it was made from, how it yields."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mmengine.dist import barrier, broadcast_object_list, is_main_process

from mm_tuning_plugin.checkpoint import read_backbone
from mm_tuning_plugin.config_types import PlainConfig
from mm_tuning_plugin.engine.common.files import FINGERPRINT, PREVIOUS_BACKBONE, TUNED_BACKBONE
from mm_tuning_plugin.engine.common.messages import warn
from mm_tuning_plugin.engine.resume.checkpoint_files import damage
from mm_tuning_plugin.engine.reuse.fingerprint import differences
from mm_tuning_plugin.errors import UserError


def previous_fingerprint(tuned: Path) -> dict | None:
    """What determined the tuning that a folder holds, finished or not; None without one."""
    if tuned.is_file():
        return read_backbone(tuned)[1].get('fingerprint') or {}
    recorded = tuned.parent / FINGERPRINT
    if not recorded.is_file():
        return None
    try:
        return dict(json.loads(recorded.read_text(encoding='utf-8')))
    except ValueError:
        return {}  # a damaged file equals no settings


def settings_changed(tuned: Path, now: dict, resume: bool, overwrite: bool) -> bool:
    """Whether the folder of a tuned backbone holds a tuning with other settings.

    Args:
        tuned: The file, finished or not.
        now: Fingerprint of the current settings.
        resume: Whether an unfinished tuning is to be continued.
        overwrite: Whether a tuning with other settings may be replaced.

    Raises:
        UserError: It has other settings and may not be replaced.
    """
    before = previous_fingerprint(tuned)
    differing = differences(before, now) if before is not None else ''
    if differing and not overwrite and (tuned.is_file() or resume):
        state = 'a finished' if tuned.is_file() else 'an unfinished'
        raise UserError(
            str(tuned.parent),
            f'{state} tuning with other settings found ({differing})',
            'expected the same settings, another work_dir, or --overwrite '
            '(mix_and_match.overwrite=True)',
        )
    return bool(differing)


def put_aside_if_damaged(tuned: Path) -> None:
    """Rename a damaged tuned backbone, so that the last checkpoint of its stage makes it again."""
    reason = [damage(tuned) if is_main_process() and tuned.is_file() else None]
    broadcast_object_list(reason)
    if reason[0] is None:
        return
    if is_main_process():
        kept = tuned.with_suffix('.damaged')
        os.replace(tuned, kept)
        warn(f'{tuned}: damaged: {reason[0]}; kept as {kept.name}, and made again')
    barrier()


def tuning_metadata(tuned: Path) -> PlainConfig:
    """Return the metadata of a tuning from its tuned backbone."""
    _, meta = read_backbone(tuned)
    return dict(iterations=meta.get('iterations'), retrieval=meta.get('retrieval') or {})


def start_over(tuning_dir: Path) -> None:
    """Clear away what an earlier tuning left, lest a later resume picks it up.

    A finished backbone is kept under another name: what comes now may fail.
    """
    left = [*tuning_dir.glob('iter_*.pth'), *tuning_dir.glob('last_checkpoint*')]
    left += [path for path in [tuning_dir / FINGERPRINT] if path.is_file()]
    tuned = tuning_dir / TUNED_BACKBONE
    if tuned.is_file():
        os.replace(tuned, tuning_dir / PREVIOUS_BACKBONE)
        warn(f'{tuned}: kept as {PREVIOUS_BACKBONE}; tuning starts over')
    elif left:
        warn(f'{tuning_dir}: an unfinished tuning found and not resumed; it starts over')
    for path in left:
        path.unlink()
