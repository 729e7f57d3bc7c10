"""The look at fine-tuning: all that a Runner would build of the config, built and dropped.

What only fine-tuning meets (its head, its losses, its hooks, its optimizer) would otherwise be told
once tuning has taken its hours. Nothing is written, nothing is said, no random state moves, and no
rank waits for another.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.model import BaseModule
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS
from torch import nn

from mm_tuning_plugin.engine.fine_tuning import batch, entries
from mm_tuning_plugin.engine.fine_tuning.network import Network, initialise, without_weights
from mm_tuning_plugin.engine.fine_tuning.registered import build, find, mistake
from mm_tuning_plugin.engine.fine_tuning.shapes import check_step
from mm_tuning_plugin.engine.no_trace import no_trace
from mm_tuning_plugin.engine.preflight import missing_packages
from mm_tuning_plugin.engine.user_config import base_type
from mm_tuning_plugin.errors import UserError

LONG = 10**6  # batches of an epoch of unknown length: schedules by epochs become ones by iterations


class Look(NamedTuple):
    """What was built, for the look at the first batch.

    Attributes:
        cfg: A copy of the config.
        scope: Its ``default_scope``.
        network: The segmentor.
        hooks: Places and hooks.
    """

    cfg: Config
    scope: str
    network: Network
    hooks: Sequence[tuple[str, Any]]


def look_at_fine_tuning(cfg: Config, loads_weights: bool = True) -> Look:
    """Build what a Runner builds before it has data, and drop it.

    Args:
        cfg: The user's config; not changed.
        loads_weights: Whether the weights that the model names will be loaded.

    Returns:
        What `look_at_first_batch` goes on with.

    Raises:
        UserError: Fine-tuning could not begin.
    """
    cfg, scope = copy.deepcopy(cfg), cfg.get('default_scope') or 'mmseg'
    for place, package in missing_packages(cfg.get('model')):
        raise UserError(
            f'model{place}: a type of {package} found, which is not installed; expected '
            f'it beside mmseg: pip install {package}'
        )
    with no_trace(scope):
        entries.check_groups(cfg)
        entries.check_loops(cfg)
        entries.check_others(cfg)
        batch.check_loaders(cfg)
        entries.check_evaluators(cfg)
        entries.check_log_processor(cfg)
        hooks = entries.check_hooks(cfg, entries.check_visualizer(cfg))
        network = Network(without_weights(cfg), scope)
        if loads_weights:
            _check_files(cfg['model'], network)
        _check_initialisation(network)
        _check_averages(network, hooks)
        _check_optimizer(cfg, network)
        _check_switches(cfg, network)
    return Look(cfg, scope, network, hooks)


def look_at_first_batch(look: Look) -> None:
    """Load the first batch of fine-tuning, and take a training step on its shapes.

    Args:
        look: From `look_at_fine_tuning`.

    Raises:
        UserError: It cannot be loaded, or the network cannot take it.
    """
    with no_trace(look.scope):
        loader = batch.build_loader(look.cfg, 'train_dataloader')
        batches = len(loader) if hasattr(loader.dataset, '__len__') else None
        entries.check_lengths(look.hooks, entries.length_of(look.cfg, batches))
        data = _prepared(look, loader, 'train_dataloader')
        if isinstance(data, Mapping) and 'inputs' in data:
            check_step(look.network, data)
        if look.cfg.get('val_cfg') is not None:
            _prepared(look, batch.build_loader(look.cfg, 'val_dataloader'), 'val_dataloader')


def _prepared(look: Look, loader: Any, name: str) -> Any:
    found = batch.first_batch(loader, name)
    if found is None:
        return None
    return batch.preprocess(look.network.config, found, name == 'train_dataloader')


def _check_files(model: Mapping[str, Any], network: Network) -> None:
    """Files on this machine that parts other than the backbone load, by mmengine's own init.

    The backbone's are told where stage one begins.
    """
    for name in ('neck', 'decode_head', 'auxiliary_head'):
        configs = model.get(name)
        for i, config in enumerate(configs if isinstance(configs, (list, tuple)) else [configs]):
            part = getattr(network.seen, name, None)
            part = part[i] if isinstance(configs, (list, tuple)) and part is not None else part
            if getattr(type(part), 'init_weights', None) is not BaseModule.init_weights:
                continue
            for file in _loaded_files((config or {}).get('init_cfg')):
                if '://' not in file and not os.path.isfile(os.path.expanduser(file)):
                    raise UserError(
                        f'model.{name}.init_cfg: {file!r} found, expected an existing file'
                    )


def _loaded_files(init_cfg: Any) -> Iterator[str]:
    for item in init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]:
        if isinstance(item, Mapping) and base_type(item) in ('Pretrained', 'PretrainedInit'):
            if isinstance(item.get('checkpoint'), str):
                yield item['checkpoint']


def _check_initialisation(network: Network) -> None:
    try:
        network.ask(initialise)
    except Exception as error:  # initialisers can raise anything
        raise mistake('model: an init_cfg', error) from error


def _check_averages(network: Network, hooks: Sequence[tuple[str, Any]]) -> None:
    """Averaged models, which mmengine's EMAHook builds as training begins."""
    for place, hook in hooks:
        if not isinstance(hook, EMAHook) or type(hook).before_run is not EMAHook.before_run:
            continue
        config = dict(hook.ema_cfg)
        find(f'{place}.ema_type', MODELS, config)
        try:
            network.ask(
                lambda model, c=config: MODELS.build(dict(c), default_args=dict(model=model))
            )
        except Exception as error:
            raise mistake(f'{place}: {base_type(config)}', error) from error


def _check_optimizer(cfg: Config, network: Network) -> None:
    """The optimizer by its constructor, and the schedules over it."""
    wrapper = cfg.get('optim_wrapper')
    if not isinstance(wrapper, Mapping) or not ({'optimizer', 'constructor'} & set(wrapper)):
        return
    given = cfg.get('param_scheduler')

    def ask(model: nn.Module) -> None:
        try:
            built = build_optim_wrapper(model, wrapper)
        except Exception as error:
            raise mistake('optim_wrapper', error) from error
        if not isinstance(built, OptimWrapperDict):
            _build_schedules(given, built, entries.length_of(cfg, LONG))

    if network.ask(ask) is None:
        return


def _build_schedules(given: Any, optimizer: Any, length: entries.Length) -> None:
    several = isinstance(given, (list, tuple))
    for i, config in enumerate(given if several else [given]):
        if not isinstance(config, Mapping):
            continue
        place = f'param_scheduler.{i}' if several else 'param_scheduler'
        find(place, PARAM_SCHEDULERS, config)
        end = length.epochs if config.get('by_epoch', True) else length.iterations
        ends = {} if end is None else dict(end=end)
        try:
            PARAM_SCHEDULERS.build(
                {**ends, **config}, default_args=dict(optimizer=optimizer, epoch_length=LONG)
            )
        except Exception as error:
            raise mistake(f'{place}: {base_type(config)}', error) from error


def _check_switches(cfg: Config, network: Network) -> None:
    """Modules that are switched on by name."""
    for key in ('activation_checkpointing', 'efficient_conv_bn_eval'):
        names = cfg.get(key) or ()
        for name in [names] if isinstance(names, str) else names:
            try:
                attrgetter(name)(network.seen)
            except AttributeError as error:
                raise UserError(
                    f'{key}: {name!r} found, expected the name of a module of the model'
                ) from error
