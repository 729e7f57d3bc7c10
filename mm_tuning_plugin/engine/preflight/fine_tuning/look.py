"""Check fine-tuning: build everything that a Runner would build from the config, then drop it.

Mistakes that only fine-tuning meets (in its head, losses, hooks, optimizer) would otherwise be
reported after hours of tuning. Nothing is written, random states do not change, and no rank waits
for another.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.hooks import Hook
from torch.utils.data import DataLoader

from mm_tuning_plugin.engine.common.messages import warn
from mm_tuning_plugin.engine.preflight.data import missing_packages
from mm_tuning_plugin.engine.preflight.fine_tuning import batch, entries, hooks, metrics, training
from mm_tuning_plugin.engine.preflight.fine_tuning.loops import check_loops, length_of
from mm_tuning_plugin.engine.preflight.fine_tuning.network import Network, without_weights
from mm_tuning_plugin.engine.preflight.fine_tuning.shapes import check_step
from mm_tuning_plugin.engine.preflight.no_side_effects import no_trace
from mm_tuning_plugin.errors import UserError


class Look(NamedTuple):
    """The built parts, for the look at the first batch.

    Attributes:
        cfg: A copy of the config.
        scope: Its ``default_scope``.
        network: The segmentor.
        hooks: Places and hooks.
    """

    cfg: Config
    scope: str
    network: Network
    hooks: Sequence[tuple[str, Hook]]


def look_at_fine_tuning(cfg: Config, loads_weights: bool = True) -> Look:
    """Build what a Runner builds of a config before it has data, and drop it.

    Args:
        cfg: The user's config; not changed.
        loads_weights: Whether the weights that the model names will be loaded.

    Returns:
        The input of `look_at_first_batch`.

    Raises:
        UserError: Fine-tuning could not begin.
    """
    cfg, scope = copy.deepcopy(cfg), cfg.get('default_scope') or 'mmseg'
    for place, package in missing_packages(cfg.get('model')):
        raise UserError(
            f'model{place}',
            f'a type of {package} found, which is not installed',
            f'install it beside mmseg by pip install {package}',
        )
    with no_trace(scope):
        entries.check_groups(cfg)
        check_loops(cfg)
        entries.check_others(cfg)
        names = metrics.check_evaluator('val_evaluator', cfg.get('val_evaluator'))
        batch.check_loaders(cfg)
        built = hooks.build_hooks(cfg, hooks.check_visualizer(cfg))
        metrics.check_best(built, names)
        network = Network(without_weights(cfg), scope)
        if loads_weights:
            training.check_files(cfg['model'], network)
        training.check_initialisation(network)
        training.check_averages(network, built)
        training.check_optimizer(cfg, network)
        training.check_switches(cfg, network)
        training.check_inference(cfg, network)
        remark = entries.remark_on_testing(cfg)
    if remark:
        warn(remark)
    return Look(cfg, scope, network, built)


def look_at_first_batch(look: Look) -> None:
    """Load the first image of fine-tuning, and take a training step on the shapes of a batch.

    Args:
        look: From `look_at_fine_tuning`.

    Raises:
        UserError: It cannot be loaded, or the network cannot take it.
    """
    with no_trace(look.scope):
        loader = batch.build_loader(look.cfg, 'train_dataloader')
        batches = len(loader) if hasattr(loader.dataset, '__len__') else None
        hooks.check_lengths(look.hooks, length_of(look.cfg, batches))
        data = _prepared(look, loader, 'train_dataloader')
        if isinstance(data, Mapping) and 'inputs' in data:
            check_step(look.network, data)
        if look.cfg.get('val_cfg') is not None:
            _prepared(look, batch.build_loader(look.cfg, 'val_dataloader'), 'val_dataloader')


def _prepared(look: Look, loader: DataLoader, name: str) -> Any:
    training = name == 'train_dataloader'
    # BatchNorm over ranks sees more than a rank's batch, however many ranks there will be.
    several = training and (look.network.normalises_over_ranks or loader.batch_size != 1)
    found = batch.first_batch(loader, name, 2 if several else 1)
    return batch.preprocess(look.network.config, found, training)
