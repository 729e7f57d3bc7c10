"""Two stages, one command.

`MixAndMatchRunner` owns two mmengine Runners, one after the other. They are composed, not nested:
a Runner inside another one's ``train`` shares its visualizer, message hub and logger by name and
moves the random state on, so that the decode head would start elsewhere than in a plain run.
"""

from __future__ import annotations

import copy
import gc
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log
from mmengine.runner import Runner

from mm_tuning_plugin.atomic_write import explain_full_disk, write_json, write_text
from mm_tuning_plugin.checkpoint import (
    hash_file,
    load_backbone_checkpoint,
    load_backbone_strict,
    read_backbone,
    save_backbone,
)
from mm_tuning_plugin.checkpoint.io.store import SAFETENSORS
from mm_tuning_plugin.config_types import PlainConfig, full_type, with_named_types
from mm_tuning_plugin.engine.common.files import FINGERPRINT, LOAD_REPORT, TUNED_BACKBONE
from mm_tuning_plugin.engine.common.messages import config_named, warn
from mm_tuning_plugin.engine.common.models import unwrap
from mm_tuning_plugin.engine.config.derive import derive_tuning_config
from mm_tuning_plugin.engine.config.derive_data import label_check
from mm_tuning_plugin.engine.config.derive_pipelines import validates_labels
from mm_tuning_plugin.engine.config.initial_weights import (
    adopt_self_supervised,
    changed_arguments,
    remove_pretrained,
)
from mm_tuning_plugin.engine.config.user_config import read_user_config
from mm_tuning_plugin.engine.distributed import join_ranks
from mm_tuning_plugin.engine.fine_tuning_runner import FineTuningRunner, Handover
from mm_tuning_plugin.engine.hooks.class_iou import ClassIoUHook
from mm_tuning_plugin.engine.monitor.line import (
    FINE_TUNING,
    TUNING,
    ProgressLine,
    stages_of,
    tuning_stage,
)
from mm_tuning_plugin.engine.monitor.status import Stage
from mm_tuning_plugin.engine.preflight.channel_order import check_readers, refuse_misread
from mm_tuning_plugin.engine.preflight.data import check_data
from mm_tuning_plugin.engine.preflight.fine_tuning import look_at_fine_tuning, look_at_first_batch
from mm_tuning_plugin.engine.preflight.stage_differences import (
    tell_of_differences,
    warn_of_arguments,
    warn_of_channels,
)
from mm_tuning_plugin.engine.report.run_report import (
    REPORT,
    STAGES,
    check_finished,
    note_circumstances,
    write_report,
)
from mm_tuning_plugin.engine.resume.run_record import begin_or_resume, with_seed
from mm_tuning_plugin.engine.resume.runner import ResumableRunner
from mm_tuning_plugin.engine.resume.signals import BEFORE, GOES_ON, Interruption
from mm_tuning_plugin.engine.reuse.fingerprint import data_manifest, fingerprint
from mm_tuning_plugin.engine.reuse.tuned_backbone import (
    put_aside_if_damaged,
    settings_changed,
    start_over,
    tuning_metadata,
)
from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.registry import RUNNERS

TUNING_CONFIG = 'tuning_config.py'


@RUNNERS.register_module()
class MixAndMatchRunner:
    """Mix-and-match tuning of the backbone, then the user's own fine-tuning from it.

    Give it to any mmseg config as ``runner_type='mm_tuning_plugin.MixAndMatchRunner'``; options
    go into ``mix_and_match`` (docs/options.md).

    Args:
        cfg: The user's config; not changed.

    Raises:
        UserError: The config cannot be tuned, or an option is wrong.
    """

    def __init__(self, cfg: Config) -> None:
        cfg = with_named_types(cfg)
        join_ranks(cfg)
        self.cfg = cfg = adopt_self_supervised(cfg)
        self.facts = read_user_config(cfg)
        self.options = self.facts.options
        self.tuning_cfg = derive_tuning_config(cfg)
        self.work_dir = Path(cfg['work_dir'])
        self.tuning_dir = Path(self.tuning_cfg['work_dir'])
        try:
            self.work_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                'work_dir',
                f'{self.work_dir} cannot be made: {error}',
                'expected a folder that can be written',
            ) from error
        self.stages: PlainConfig = {}

    @classmethod
    def from_cfg(cls, cfg: Config) -> MixAndMatchRunner:
        """Build from a config, as mmengine's registry does."""
        return cls(cfg)

    def train(self) -> torch.nn.Module:
        """Run both stages.

        Returns:
            The fine-tuned model.

        Raises:
            UserError: The data, the start, a finished tuning in the way, a full disk, or something
                in the config that cannot be built.
            SystemExit: After SIGINT or SIGTERM, with a checkpoint and one line.
        """
        with self._running(stages_of(self.cfg, self.options)):
            return self._train()

    def tune(self) -> Path:
        """Run stage one alone, unless it is finished.

        Returns:
            The ``tuned_backbone.pth``; ``mix_and_match.tuned_backbone`` accepts it.

        Raises:
            UserError: As `train`.
            SystemExit: As `train`.
        """
        with self._running([tuning_stage(self.options)]):
            return self._tuned(data_manifest(self._begin()))

    @contextmanager
    def _running(self, stages: Sequence[Stage]) -> Iterator[None]:
        """Around a run: what signals do, what a full disk is called, the line of progress."""
        self.line = ProgressLine(stages)
        with Interruption() as self.interruption, explain_full_disk(self.work_dir), self.line:
            self.interruption.idle(BEFORE)
            yield

    def _begin(self) -> list[dict]:
        """Check the data of both stages; return the information on each training image."""
        if self.options.compare is not None:
            check_finished(Path(self.options.compare))
        self.record = begin_or_resume(self.work_dir, bool(self.cfg.get('resume', False)))
        self.cfg = with_seed(self.cfg, self.record.seed)
        items = self._check_data('train_dataloader')
        if isinstance(self.cfg.get('val_dataloader'), Mapping):
            self._check_data('val_dataloader')
        self.interruption.end_if_idle()
        return items

    def _look_at_fine_tuning(self) -> None:
        """Report mistakes that only stage two would meet, before stage one."""
        model, tuning = self.cfg['model'], self.tuning_cfg
        try:
            look = look_at_fine_tuning(self.cfg, loads_weights=self.options.checkpoint is None)
            look_at_first_batch(look)
        except UserError:
            if self.options.enabled:
                refuse_misread(model, tuning['model'], tuning['default_scope'])
            raise

    def _train(self) -> torch.nn.Module:
        items = self._begin()
        self._look_at_fine_tuning()
        self.interruption.end_if_idle()
        if not self.options.enabled:
            start = self.options.checkpoint
            begins = f'baseline {hash_file(start) if start else "as the config initialises"}'
            return self._fine_tune(self._start_handover(), begins)
        if self.options.tuned_backbone is not None:
            tuned = Path(self.options.tuned_backbone)
            if not tuned.is_file():
                raise UserError(str(tuned), 'no such file', 'expected a tuned backbone')
        else:
            tuned = self._tuned(data_manifest(items))
            self.interruption.idle(f'between the stages; {GOES_ON}')
            self.interruption.end_if_idle()
            self._show_load_report()
        begins = f'tuned {read_backbone(tuned)[1].get("hash_after")}'
        return self._fine_tune(lambda backbone: load_backbone_strict(backbone, tuned), begins)

    def _check_data(self, loader: str) -> list[dict]:
        train = None if loader == 'train_dataloader' else self.cfg['train_dataloader']['dataset']
        labelled = train is None or validates_labels(self.cfg)
        return check_data(
            self.cfg[loader]['dataset'],
            label_check(self.facts) if labelled else None,
            self.tuning_cfg['default_scope'],
            f'{loader}.dataset',
            train=train,
        )

    def _tuned(self, manifest: str) -> Path:
        """The file that stage one leaves, also as .safetensors if that is asked for."""
        tuned = self._tune(manifest)
        if self.options.safetensors and is_main_process():
            save_backbone(tuned.with_suffix(SAFETENSORS), *read_backbone(tuned))
        return tuned

    def _tune(self, manifest: str) -> Path:
        """Run stage one unless it is finished."""
        tuned = self.tuning_dir / TUNED_BACKBONE
        resume = bool(self.cfg.get('resume', False))
        if resume:
            put_aside_if_damaged(tuned)
        now = fingerprint(self.tuning_cfg, self.options, manifest)
        differing = settings_changed(tuned, now, resume, self.options.overwrite)
        if tuned.is_file() and not differing:
            print_log(f'tuning is finished: {tuned} is used again', logger='current')
            self.stages['tuning'] = dict(reused=True, **tuning_metadata(tuned))
            return tuned
        barrier()
        if not (resume and not differing) and is_main_process():
            start_over(self.tuning_dir)
        barrier()
        self._run_tuning(now, resume=resume and not differing)
        return tuned

    def _run_tuning(self, current: dict, resume: bool) -> None:
        cfg = derive_tuning_config(self.cfg)  # once more: it has a seed by now
        cfg['resume'] = resume
        for hook in cfg['custom_hooks']:
            if full_type(hook) == 'mm_tuning_plugin.SaveBackboneHook':
                hook['fingerprint'] = current
        if is_main_process():
            write_json(self.tuning_dir / FINGERPRINT, current)
            write_text(self.tuning_dir / TUNING_CONFIG, cfg.pretty_text)
        begun = time.time()
        runner = self._build(ResumableRunner, cfg)
        check_readers(self.cfg['model'], unwrap(runner.model), cfg['default_scope'])
        tell_of_differences(self.cfg, cfg)
        runner.logger.info(
            f'stage 1 of 2: mix-and-match tuning, {self.options.max_iters} iterations, '
            f'in {self.tuning_dir}'
        )
        self.line.follow(runner, TUNING)
        runner.train()
        barrier()  # the main rank has written the backbone
        self.stages['tuning'] = dict(
            seconds=round(time.time() - begun, 2),
            **tuning_metadata(self.tuning_dir / TUNED_BACKBONE),
        )
        _close(runner)
        del runner
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        barrier()

    def _start_handover(self) -> Handover | None:
        """The start of the baseline: the same file, by the same strict hand-over."""
        start = self.options.checkpoint
        if start is None:
            return None

        def hand_over(backbone: torch.nn.Module) -> None:
            report = load_backbone_checkpoint(
                backbone,
                start,
                min_matched=self.options.min_matched,
                allow_pickle=self.options.allow_pickle,
                prefix=self.options.checkpoint_prefix,
            )
            print_log(f'start of the backbone:\n{report}', logger='current')
            if report.arguments:
                warn_of_arguments(self.cfg, report.arguments, 'the weights come from')
            warn_of_channels(report.layout.format, self.facts.normalisation.swap_channels)
            if is_main_process():
                write_text(self.work_dir / LOAD_REPORT, report.to_json())

        return hand_over

    def _show_load_report(self) -> None:
        """Copy the report on stage one's initial weights to where the baseline writes it."""
        written = self.tuning_dir / LOAD_REPORT
        if written.is_file() and is_main_process():
            report = written.read_text(encoding='utf-8')
            read = json.loads(report)['layout'].get('format', '')
            warn_of_channels(read, self.facts.normalisation.swap_channels)
            write_text(self.work_dir / LOAD_REPORT, report)

    def _fine_tune(self, handover: Handover | None, begins: str) -> torch.nn.Module:
        """Run stage two.

        Args:
            handover: Puts the weights that it begins from into the backbone.
            begins: Identifies the initial weights; only a run with the same is resumed.
        """
        cfg = copy.deepcopy(self.cfg)
        if self.options.checkpoint is not None:
            # Nothing is downloaded or read only to be overwritten.
            cfg['model'] = remove_pretrained(cfg['model'])
        begun = time.time()
        runner = self._build(FineTuningRunner, cfg)
        runner.handover = handover
        runner.register_hook(ClassIoUHook())
        runner.run_id = runner.run_id and f'{runner.run_id}, {begins}'
        if self.options.enabled:
            runner.logger.info('stage 2 of 2: fine-tuning from the tuned backbone')
            needed = changed_arguments(self.cfg['model'], self.tuning_cfg['model'])
            if needed:
                warn_of_arguments(self.cfg, needed, 'was tuned')
        self.line.follow(runner, FINE_TUNING)
        model = runner.train()
        scalars = runner.message_hub.log_scalars
        self.stages['fine_tuning'] = dict(
            seconds=round(time.time() - begun, 2),
            iterations=runner.iter,
            metrics={
                name[len('val/') :]: float(history.current())
                for name, history in scalars.items()
                if name.startswith('val/') and not name.endswith('time')
            },
        )
        if is_main_process():
            write_json(self.work_dir / STAGES, self.stages)
            self._report()
        return model

    def _report(self) -> None:
        """Write the report. A finished run does not fail because of it."""
        if not self.options.report:
            return
        note_circumstances(self.work_dir)
        compare = self.options.compare
        try:
            path = write_report(self.work_dir, compare and Path(compare))
        except (OSError, ValueError, TypeError, KeyError) as error:
            warn(f'{self.work_dir / REPORT}: not written: {error}')
            return
        print_log(f'report: {path}', logger='current')

    def _build(self, kind: type[ResumableRunner], cfg: Config) -> ResumableRunner:
        """Build the Runner of a stage; report a mistake in its config in one line.

        Raises:
            UserError: Something in the config cannot be built.
        """
        with config_named():
            runner = kind.from_cfg(cfg)
        self.interruption.end_if_idle()
        runner.interruption = self.interruption
        runner.run_id = self.record.id
        return runner


def _close(runner: Runner) -> None:
    """Let go of the files of a Runner that has ended."""
    runner.visualizer.close()
    for handler in list(runner.logger.handlers):
        if isinstance(handler, logging.FileHandler):
            handler.close()
            runner.logger.removeHandler(handler)
