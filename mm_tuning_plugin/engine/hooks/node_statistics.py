"""Hooks of stage one. They observe, warn and write; none of them changes the training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.dist import all_gather_object, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from mm_tuning_plugin import __version__
from mm_tuning_plugin.checkpoint import hash_state_dict, save_backbone, write_aside
from mm_tuning_plugin.engine.hooks.finite import require_finite
from mm_tuning_plugin.engine.common.messages import warn
from mm_tuning_plugin.engine.config.learning_rates import trains_backbone
from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.registry import HOOKS

TUNED_BACKBONE = 'tuned_backbone.pth'
LOAD_REPORT = 'load_report.json'
CARRIED = 'mm_tuning_plugin'  # the key in a checkpoint under which the hooks leave what they know
COUNTERS = ('batches', 'batches_without_triplets', 'batches_with_idle_ranks')


def unwrap(model: torch.nn.Module) -> torch.nn.Module:
    """The model inside a distributed wrapper, or the model itself."""
    return model.module if is_model_wrapper(model) else model


@HOOKS.register_module()
class NodeStatisticsHook(Hook):
    """Warn of images without usable labels, ranks without nodes, batches without triplets.

    And of classes never seen. mmengine lets the main rank alone warn, so the ranks tell each other
    what they saw: before every checkpoint, which carries it over an interruption, and at the end.
    A plain mmengine Runner does not ask for the first of these.

    Args:
        class_names: Names of the classes.
    """

    priority = 'BELOW_NORMAL'

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = list(class_names)
        # Of all ranks, up to the last exchange.
        self.nodes_per_class = torch.zeros(len(self.class_names), dtype=torch.int64)
        self.images_without_nodes: set[str] = set()
        # Of this rank, since then.
        self.own_nodes = torch.zeros_like(self.nodes_per_class)
        self.own_images: set[str] = set()
        # The same on every rank.
        self.batches = 0
        self.batches_without_triplets = 0
        self.batches_with_idle_ranks = 0

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Count the nodes of the rank's batch and look for images without any."""
        labels = torch.cat(list(data_batch['labels']))
        self.own_nodes += torch.bincount(labels, minlength=len(self.class_names))
        for path, nodes in zip(data_batch['meta']['img_path'], data_batch['labels']):
            if not len(nodes):
                self.own_images.add(path)
                self._tell_of_image(path)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Count batches that taught nothing, and those that were not on every rank."""
        self.batches += 1
        if float(outputs.get('triplets', 1)) == 0:
            self.batches_without_triplets += 1
            if self.batches_without_triplets == 1:
                classes = len(torch.cat(list(data_batch['labels'])).unique())
                whose = 'its' if get_world_size() == 1 else "the main rank's"
                warn(
                    f'iteration {runner.iter + 1}: a batch without triplets: {classes} classes '
                    f'among {whose} nodes, expected two, one of them twice'
                )
        idle = int(outputs.get('ranks_without_nodes', 0))
        if idle:
            self.batches_with_idle_ranks += 1
            if self.batches_with_idle_ranks == 1:
                warn(
                    f'iteration {runner.iter + 1}: {idle} of {get_world_size()} ranks without '
                    'nodes: no usable label in their images; the graph spans the nodes of the '
                    'others'
                )

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Carry what was seen over an interruption; only the main rank is asked."""
        checkpoint.setdefault(CARRIED, {})['seen'] = dict(
            nodes_per_class=self.nodes_per_class + self.own_nodes,
            images_without_nodes=sorted(self.images_without_nodes),
            **{name: getattr(self, name) for name in COUNTERS},
        )

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Take up what all ranks saw before an interruption."""
        seen = checkpoint.get(CARRIED, {}).get('seen')
        if seen is not None:
            self.nodes_per_class = seen['nodes_per_class'].cpu()
            self.images_without_nodes = set(seen['images_without_nodes'])
            for name in COUNTERS:
                setattr(self, name, seen[name])

    def after_train(self, runner) -> None:
        """Sum up."""
        self.exchange_over_ranks(runner)
        never = [name for name, count in zip(self.class_names, self.nodes_per_class) if not count]
        if never:
            warn(f'classes that never occurred among the nodes of tuning: {", ".join(never)}')
        if self.batches_without_triplets:
            warn(f'{self.batches_without_triplets} of {self.batches} batches had no triplets')
        if self.batches_with_idle_ranks:
            warn(
                f'{self.batches_with_idle_ranks} of {self.batches} batches had ranks without nodes'
            )

    def exchange_over_ranks(self, runner) -> None:
        """Bring together what the ranks saw since the last time; every rank must call it."""
        for nodes, images in all_gather_object((self.own_nodes, sorted(self.own_images))):
            self.nodes_per_class += nodes
            for path in images:
                self._tell_of_image(path)
        self.own_nodes = torch.zeros_like(self.nodes_per_class)
        self.own_images = set()

    def _tell_of_image(self, path: str) -> None:
        if path not in self.images_without_nodes:
            self.images_without_nodes.add(path)
            warn(f'{path}: an image without usable labels; no node can be drawn on it')


@HOOKS.register_module()
class SaveBackboneHook(Hook):
    """Measure node retrieval before tuning, and write the tuned backbone at its end.

    The file is ``tuned_backbone.pth``: ``{'state_dict': plain keys, 'meta': ...}``, of the *last*
    iteration: choosing one by validation labels would leak them into one arm of a comparison.

    Args:
        fingerprint: What determines the tuned weights; goes into ``meta``.
    """

    priority = 'LOW'

    def __init__(self, fingerprint: dict | None = None) -> None:
        self.fingerprint = fingerprint
        self.hash_before: str | None = None
        self.resumed_hash: str | None = None
        self.retrieval: dict[str, dict[str, float]] = {}

    def before_train(self, runner) -> None:
        """Keep the hash of the start, write its LoadReport, measure retrieval once.

        Raises:
            UserError: The optimizer moves no parameter of the backbone.
        """
        model = unwrap(runner.model)
        if not trains_backbone(runner.optim_wrapper.param_groups, model):
            raise UserError(
                'optim_wrapper',
                'the learning rate of every parameter of the backbone is 0, so nothing is tuned',
                'expected a larger one for some of them (mix_and_match.lr sets that of stage one)',
            )
        self.hash_before = self.resumed_hash or hash_state_dict(model.backbone.state_dict())
        report = getattr(model, 'load_report', None)
        if report is not None:
            runner.logger.info(f'start of the backbone:\n{report}')
            if is_main_process():
                with write_aside(Path(runner.work_dir, LOAD_REPORT)) as aside:
                    aside.write_text(report.to_json(), encoding='utf-8')
        if runner.iter == 0 and runner.val_loop is not None:
            runner.val_loop.run()

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Remember the measurements by iteration."""
        self.retrieval[str(runner.iter)] = {k: float(v) for k, v in (metrics or {}).items()}

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Carry what was measured over an interruption."""
        checkpoint.setdefault(CARRIED, {}).update(
            hash_before=self.hash_before, retrieval=self.retrieval
        )

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Take up what was measured before an interruption."""
        carried = checkpoint.get(CARRIED, {})
        self.retrieval.update(carried.get('retrieval', {}))
        self.resumed_hash = carried.get('hash_before')

    def after_train(self, runner) -> None:
        """Write the backbone; warn if tuning left it as it was.

        Raises:
            UserError: Its weights are not finite.
        """
        state_dict = unwrap(runner.model).backbone.state_dict()
        require_finite(state_dict, f'tuned backbone, after iteration {runner.iter}')
        hash_after = hash_state_dict(state_dict)
        if hash_after == self.hash_before:
            warn('tuning did not change a single weight of the backbone')
        if not is_main_process():
            return
        meta = dict(
            mm_tuning_plugin=__version__,
            iterations=runner.iter,
            fingerprint=self.fingerprint,
            hash_before=self.hash_before,
            hash_after=hash_after,
            retrieval=self.retrieval,
        )
        path = os.path.join(runner.work_dir, TUNED_BACKBONE)
        save_backbone(path, state_dict, meta)
        runner.logger.info(f'tuned backbone written to {path}')
