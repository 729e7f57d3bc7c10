"""What training begins with: weights, averages of them, the optimizer and its schedules."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

from mmengine.config import Config
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModule
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from mmengine.registry import (
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    WEIGHT_INITIALIZERS,
)
from mmseg.models import EncoderDecoder
from torch import nn

from mm_tuning_plugin.config_types import ConfigMap, base_type
from mm_tuning_plugin.engine.preflight.fine_tuning.loops import Length, length_of
from mm_tuning_plugin.engine.preflight.fine_tuning.network import Network, initialise
from mm_tuning_plugin.engine.preflight.fine_tuning.registered import find, items, mistake
from mm_tuning_plugin.errors import UserError

LONG = 10**6  # batches of an epoch of unknown length: schedules by epochs become ones by iterations
HEADS = ('neck', 'decode_head', 'auxiliary_head')


def check_files(model: ConfigMap, network: Network) -> None:
    """Yield local files that parts after the backbone load through mmengine's init.

    The backbone's are reported when stage one begins.

    Raises:
        UserError: One is not there.
    """
    for name in HEADS:
        for place, config in items(name, model.get(name)):
            try:
                part = network.seen.get_submodule(place)
            except AttributeError:
                continue
            if getattr(type(part), 'init_weights', None) is not BaseModule.init_weights:
                continue
            for file in _loaded_files(config):
                if '://' not in file and not os.path.isfile(os.path.expanduser(file)):
                    raise UserError(
                        f'model.{place}.init_cfg', f'{file!r} found', 'expected an existing file'
                    )


def _loaded_files(config: object) -> Iterator[str]:
    given = config.get('init_cfg') if isinstance(config, Mapping) else None
    for item in given if isinstance(given, (list, tuple)) else [given]:
        kind = base_type(item) if isinstance(item, Mapping) else ''
        if kind in ('Pretrained', 'PretrainedInit') and isinstance(item.get('checkpoint'), str):
            yield item['checkpoint']


def check_initialisation(network: Network) -> None:
    """Initialise the weights by the config.

    Raises:
        UserError: An ``init_cfg`` is wrong.
    """
    try:
        network.ask(initialise)
    except UserError:
        raise
    except Exception as error:  # initialisers can raise anything
        raise mistake('model', 'an init_cfg', error, WEIGHT_INITIALIZERS) from error


def check_averages(network: Network, hooks: Sequence[tuple[str, Hook]]) -> None:
    """Build the averaged models that mmengine's EMAHook builds as training begins.

    Raises:
        UserError: One cannot be built.
    """
    for place, hook in hooks:
        if not isinstance(hook, EMAHook) or type(hook).before_run is not EMAHook.before_run:
            continue
        config = dict(hook.ema_cfg)
        find(f'{place}.ema_type', MODELS, config)

        def average(model: nn.Module, config: dict = config) -> None:
            MODELS.build(dict(config), default_args=dict(model=model))

        try:
            network.ask(average)
        except UserError:
            raise
        except Exception as error:  # classes of the user's can raise anything
            raise mistake(place, base_type(config), error) from error


def check_optimizer(cfg: Config, network: Network) -> None:
    """Build the optimizer by its constructor, and the schedules over it.

    Raises:
        UserError: One cannot be built.
    """
    wrapper = cfg.get('optim_wrapper')
    if not isinstance(wrapper, Mapping) or not ({'optimizer', 'constructor'} & set(wrapper)):
        return
    constructor = dict(type=wrapper.get('constructor', 'DefaultOptimWrapperConstructor'))
    find('optim_wrapper.constructor', OPTIM_WRAPPER_CONSTRUCTORS, constructor)
    if 'type' in wrapper:
        find('optim_wrapper', OPTIM_WRAPPERS, wrapper)
    optimizer = wrapper.get('optimizer')
    if isinstance(optimizer, Mapping) and 'type' in optimizer:
        find('optim_wrapper.optimizer', OPTIMIZERS, optimizer)

    def ask(model: nn.Module) -> None:
        try:
            built = build_optim_wrapper(model, wrapper)
        except Exception as error:  # constructors can raise anything
            raise mistake('optim_wrapper', 'the optimizer', error, OPTIMIZERS) from error
        if not isinstance(built, OptimWrapperDict):
            _build_schedules(cfg.get('param_scheduler'), built, length_of(cfg, LONG))

    network.ask(ask)


def _build_schedules(given: Any, optimizer: Any, length: Length) -> None:
    for place, config in items('param_scheduler', given):
        if not isinstance(config, Mapping):
            continue
        find(place, PARAM_SCHEDULERS, config)
        end = length.epochs if config.get('by_epoch', True) else length.iterations
        ends = {} if end is None else dict(end=end)
        try:
            PARAM_SCHEDULERS.build(
                {**ends, **config}, default_args=dict(optimizer=optimizer, epoch_length=LONG)
            )
        except Exception as error:  # classes of the user's can raise anything
            raise mistake(place, base_type(config), error) from error


def check_switches(cfg: Config, network: Network) -> None:
    """Modules that are switched over by name.

    Raises:
        UserError: A name does not exist.
    """
    for key in ('activation_checkpointing', 'efficient_conv_bn_eval'):
        for _, name in items(key, cfg.get(key)):
            try:
                attrgetter(name)(network.seen)
            except (AttributeError, TypeError) as error:
                raise UserError(
                    key, f'{name!r} found', 'expected the name of a module of the model'
                ) from error


def check_inference(cfg: Config, network: Network) -> None:
    """How mmseg's segmentor cuts images in validation, which comes after an interval.

    Raises:
        UserError: It could not.
    """
    model = network.seen
    owns = all(
        getattr(type(model), name, None) is getattr(EncoderDecoder, name)
        for name in ('inference', 'slide_inference')
    )
    if cfg.get('val_cfg') is None or not owns:
        return
    given = model.test_cfg
    mode = 'none' if given is None else given.get('mode', 'whole')
    if mode not in ('whole', 'slide'):
        raise UserError('model.test_cfg', f'{given} found', "expected mode='whole' or mode='slide'")
    missing = [name for name in ('crop_size', 'stride') if given.get(name) is None]
    if mode == 'slide' and missing:
        raise UserError(
            'model.test_cfg', "mode='slide' found", f'expected {" and ".join(missing)} beside it'
        )
