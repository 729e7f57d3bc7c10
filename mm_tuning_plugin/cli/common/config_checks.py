"""What a run of a config needs: its data, its start, room on the disk, and a trial of two steps.

One finding for each, with its remedy. A check that depends on a failed one is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mm_tuning_plugin.cli.common.environment import ERROR, NOTE, OK, Finding
from mm_tuning_plugin.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

    from mm_tuning_plugin.engine.config.user_config import UserConfig
    from mm_tuning_plugin.engine.preflight.fine_tuning.look import Look

SAMPLES = 8  # images of each data set that are read
GIGA = 1e9  # bytes


def examine(args: argparse.Namespace) -> Iterator[Finding]:
    """Yield all findings about a config, each as soon as it is known.

    Args:
        args: Of the doctor, with a config.
    """
    from mm_tuning_plugin.engine.preflight.fine_tuning import look_at_fine_tuning

    try:
        cfg, facts = read_config(args)
        look = look_at_fine_tuning(cfg, loads_weights=facts.options.checkpoint is None)
    except UserError as error:
        yield _refused('config', error)
        return
    from mm_tuning_plugin.nodes.base import node_name

    options = facts.options
    stage_one = f'{options.max_iters} iterations on {node_name(options.nodes)}'
    found = f'{facts.num_classes} classes; stage one: {stage_one if options.enabled else "off"}'
    yield Finding(OK, 'config', found)
    data = check_data_sets(cfg, facts)
    findings = [*data, check_start(cfg, facts), check_disk(cfg, facts)]
    if all(finding.level != ERROR for finding in data):
        findings.insert(len(data), check_fine_tuning(look))
    yield from findings
    if args.no_trial:
        yield Finding(NOTE, 'trial', 'left out', 'leave out --no-trial')
    elif all(finding.level != ERROR for finding in findings):
        yield try_run(args)


def _refused(subject: str, error: UserError, more: str = '') -> Finding:
    """A user's mistake as a finding.

    Args:
        subject: What was checked.
        error: The mistake.
        more: Where to find more.
    """
    remedy = f'{error.remedy} ({more})' if more else error.remedy
    return Finding(ERROR, subject, f'{error.where}: {error.problem}', remedy)


def read_config(args: argparse.Namespace) -> tuple[Config, UserConfig]:
    """The config with the command's options in it, and what the plan reads out of it.

    Raises:
        UserError: It cannot be read or tuned.
    """
    from mm_tuning_plugin.cli import train
    from mm_tuning_plugin.engine.config.derive import derive_from
    from mm_tuning_plugin.engine.config.initial_weights import adopt_self_supervised
    from mm_tuning_plugin.engine.config.user_config import read_user_config

    given = train.build_parser().parse_args(train_arguments(args, args.work_dir))
    cfg = train.load_config(given.config)
    train.apply_arguments(cfg, given)
    if train.is_proxy_task(cfg):
        raise UserError(
            given.config,
            f'the proxy task {cfg.model.type} found',
            'expected a config of fine-tuning, as a proxy has a single stage',
        )
    cfg = adopt_self_supervised(cfg)
    options = dict(cfg['mix_and_match'])
    start = options.pop('checkpoint', None)
    # missing or unfitting initial weights are a separate finding
    facts = read_user_config(_with_options(cfg, options))
    derive_from(facts)
    facts = replace(facts, options=replace(facts.options, checkpoint=start))
    return _with_options(cfg, dict(options, checkpoint=start)), facts


def _with_options(cfg: Config, options: dict) -> Config:
    copied = cfg.copy()
    copied['mix_and_match'] = options
    return copied


def train_arguments(args: argparse.Namespace, work_dir: str | None) -> list[str]:
    """The doctor's arguments as those of ``tools/train.py``."""
    words = [args.config]
    if args.ssl_checkpoint is not None:
        words += ['--ssl-checkpoint', args.ssl_checkpoint]
    if args.allow_pickle:
        words += ['--allow-pickle']
    if work_dir is not None:
        words += ['--work-dir', work_dir]
    return [*words, '--cfg-options', *args.cfg_options] if args.cfg_options else words


def check_data_sets(cfg: Config, facts: UserConfig) -> list[Finding]:
    """Whether each data set is there, its files too, and some of its labels fit the classes."""
    from mm_tuning_plugin.engine.config.derive_data import label_check
    from mm_tuning_plugin.engine.config.derive_pipelines import validates_labels
    from mm_tuning_plugin.engine.preflight.data import check_data

    findings = []
    for loader in ('train_dataloader', 'val_dataloader'):
        if cfg.get(loader) is None:
            findings.append(Finding(NOTE, loader, 'none: nothing will be validated'))
            continue
        dataset, scope = cfg[loader]['dataset'], cfg.get('default_scope') or 'mmseg'
        train = None if loader == 'train_dataloader' else cfg['train_dataloader']['dataset']
        check = label_check(facts) if train is None or validates_labels(cfg) else None
        try:
            items = check_data(dataset, check, scope, f'{loader}.dataset', SAMPLES, train)
        except UserError as error:
            findings.append(_refused(loader, error, 'browse shows the labels'))
            continue
        read = min(SAMPLES, len(items))
        fits = 'with labels; {} read, their values fit the classes'
        found = f'{len(items)} images ' + (fits if check else 'without labels; {} read').format(
            read
        )
        findings.append(Finding(OK, loader, found))
    return findings


def check_fine_tuning(look: Look) -> Finding:
    """Whether the first batch of fine-tuning can be loaded, and the network can take it."""
    from mm_tuning_plugin.engine.preflight.fine_tuning import look_at_first_batch

    try:
        look_at_first_batch(look)
    except UserError as error:
        return _refused('fine-tuning', error)
    return Finding(OK, 'fine-tuning', 'all that it builds can be built, and fits its first batch')


def check_start(cfg: Config, facts: UserConfig) -> Finding:
    """Whether the weights that the backbone is to start from are there and fit it."""
    from mm_tuning_plugin.checkpoint import load_backbone_checkpoint
    from mm_tuning_plugin.cli.common.stock_file import build_backbone
    from mm_tuning_plugin.engine.config.initial_weights import split_start, with_needed_arguments

    options, subject = facts.options, 'start'
    try:
        backbone, checkpoint = split_start(cfg['model'], options.checkpoint)
        if checkpoint is None:
            found = 'no file named: the backbone starts as the config initialises it'
            return Finding(NOTE, subject, found, '--ssl-checkpoint FILE, for tuned weights')
        scope = cfg.get('default_scope') or 'mmseg'
        backbone = with_needed_arguments(backbone, checkpoint, options, scope)
        with contextlib.redirect_stdout(None):
            built = build_backbone(backbone)
        report = load_backbone_checkpoint(
            built,
            checkpoint,
            min_matched=options.min_matched,
            allow_pickle=options.allow_pickle,
            prefix=options.checkpoint_prefix,
        )
    except UserError as error:
        more = 'mm-tuning convert --inspect FILE says what it holds and which backbone it fits'
        return _refused(subject, error, more)
    found = f'{checkpoint}: fills {report.share:.1%} of {backbone["type"]}, layout {report.layout}'
    return Finding(OK, subject, found)


def check_disk(cfg: Config, facts: UserConfig) -> Finding:
    """Whether the checkpoints of both stages find room in the work_dir."""
    from mm_tuning_plugin.engine.preflight.disk_space import bytes_needed

    folder = Path(cfg['work_dir']).resolve()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        found = f'{cfg["work_dir"]}: {folder} is no folder that can be written'
        return Finding(ERROR, 'work_dir', found, '--work-dir DIR, or mend its permissions')
    try:
        needed, described = bytes_needed(cfg, facts.options)
    except UserError as error:
        return _refused('model', error)
    free = shutil.disk_usage(folder).free
    found = (
        f'{cfg["work_dir"]}: {free / GIGA:.3g} GB free, about {needed / GIGA:.2g} GB needed '
        f'({described})'
    )
    if needed > free:
        remedy = 'default_hooks.checkpoint.max_keep_ckpts=2, a longer interval, or --work-dir DIR'
        return Finding(ERROR, 'work_dir', found, remedy)
    return Finding(OK, 'work_dir', found)


def try_run(args: argparse.Namespace) -> Finding:
    """Run two steps of both stages in a separate process and a temporary folder."""
    limit, begun = args.trial_seconds, time.time()
    with _ending_on_sigterm(), tempfile.TemporaryDirectory(prefix='mm_tuning_trial_') as folder:
        words = train_arguments(args, os.path.join(folder, 'run'))
        command = [sys.executable, '-m', 'mm_tuning_plugin.cli.common.trial_run', *words]
        log = Path(folder, 'log')
        with log.open('wb') as opened:
            child = subprocess.Popen(
                command, stdout=opened, stderr=opened, start_new_session=True, env=_environment()
            )
            try:
                status = child.wait(limit)
            except subprocess.TimeoutExpired:
                found = f'two steps of both stages are not done in {limit} s, and were stopped'
                remedy = '--trial-seconds N for more; or fewer mix_and_match.images_per_batch'
                return Finding(NOTE, 'trial', found, remedy)
            finally:
                _end(child)
        seconds = time.time() - begun
        if status:
            return Finding(ERROR, 'trial', _last_line(log, status), 'mend it, and ask again')
        stages = json.loads(Path(folder, 'run', 'stages.json').read_text(encoding='utf-8'))
        parts = ', '.join(f'{name} {stage["seconds"]:.1f} s' for name, stage in stages.items())
        found = f'two steps of both stages ran in {seconds:.0f} s of {limit} s allowed ({parts})'
        return Finding(OK, 'trial', found)


@contextlib.contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end this process by an exception, so that a trial is cleared away."""

    def end(signum: int, frame: object) -> None:
        raise SystemExit(128 + signum)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _environment() -> dict[str, str]:
    """The child finds this package where this process has it, installed or not."""
    root = str(Path(__file__).resolve().parents[3])
    paths = [root, *filter(None, [os.environ.get('PYTHONPATH')])]
    return dict(os.environ, PYTHONPATH=os.pathsep.join(paths))


def _end(child: subprocess.Popen) -> None:
    """End a process with all its workers; those of one that has ended well are gone already."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _last_line(log: Path, status: int) -> str:
    """The mistake that a run ended with, in one line."""
    lines = log.read_text(encoding='utf-8', errors='replace').strip().splitlines()
    errors = [line for line in lines if line.startswith('error: ')]
    last = errors[-1][len('error: ') :] if errors else (lines or ['nothing was said'])[-1].strip()
    return last if errors else f'ended with status {status}: {last}'
