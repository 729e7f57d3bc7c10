"""A hook of stage one that observes nodes. It does not change the training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.dist import all_gather_object, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mm_tuning_plugin.engine.common.files import CARRIED
from mm_tuning_plugin.engine.common.messages import warn
from mm_tuning_plugin.registry import HOOKS

COUNTERS = ('batches', 'batches_without_triplets', 'batches_with_idle_ranks')


@HOOKS.register_module()
class NodeStatisticsHook(Hook):
    """Warn of unlabelled images, ranks without nodes, batches without triplets, missing classes.

    In mmengine only the main rank warns, so the ranks exchange their observations: before every
    checkpoint, which stores them, and at the end. A plain mmengine Runner does only the latter.

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

    def before_train_iter(self, runner: Runner, batch_idx, data_batch=None) -> None:
        """Count the nodes of the rank's batch and look for images without any."""
        labels = torch.cat(list(data_batch['labels']))
        self.own_nodes += torch.bincount(labels, minlength=len(self.class_names))
        for path, nodes in zip(data_batch['meta']['img_path'], data_batch['labels']):
            if not len(nodes):
                self.own_images.add(path)
                self._tell_of_image(path)

    def after_train_iter(self, runner: Runner, batch_idx, data_batch=None, outputs=None) -> None:
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

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the observations in the checkpoint; only the main rank calls this."""
        checkpoint.setdefault(CARRIED, {})['seen'] = dict(
            nodes_per_class=self.nodes_per_class + self.own_nodes,
            images_without_nodes=sorted(self.images_without_nodes),
            **{name: getattr(self, name) for name in COUNTERS},
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take up what all ranks saw before an interruption."""
        seen = checkpoint.get(CARRIED, {}).get('seen')
        if seen is not None:
            self.nodes_per_class = seen['nodes_per_class'].cpu()
            self.images_without_nodes = set(seen['images_without_nodes'])
            for name in COUNTERS:
                setattr(self, name, seen[name])

    def after_train(self, runner: Runner) -> None:
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
