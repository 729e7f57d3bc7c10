"""The entries of a config that only fine-tuning reads, but for its network and its data.

Most are built as a Runner builds them, and dropped. Loops, which need a Runner, and backends of a
visualizer, which tell the world of a run, are looked up and their arguments bound.
"""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.evaluator import Evaluator
from mmengine.hooks import EMAHook, Hook
from mmengine.runner.priority import get_priority
from mmengine.registry import (
    EVALUATOR,
    HOOKS,
    LOG_PROCESSORS,
    LOOPS,
    METRICS,
    MODEL_WRAPPERS,
    TRANSFORMS,
    VISBACKENDS,
    VISUALIZERS,
)
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.visualization import Visualizer

from mm_tuning_plugin.engine.fine_tuning.registered import build, check_arguments, find, told
from mm_tuning_plugin.engine.kinds import shown
from mm_tuning_plugin.engine.messages import MISTAKES, warn
from mm_tuning_plugin.errors import UserError

# What belongs together: all of it is there, or nothing.
GROUPS = {
    'training': ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    'validation': ('val_dataloader', 'val_cfg', 'val_evaluator'),
    'testing': ('test_dataloader', 'test_cfg', 'test_evaluator'),
}
DEFAULT_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
# Arguments that name a folder to write to, which some constructors make and some destructors clear.
WRITTEN = ('out_dir', 'output_dir', 'save_dir', 'result_path')
# What mmengine's backends import once they are used: any of these.
PACKAGES = {
    'WandbVisBackend': ('wandb',),
    'TensorboardVisBackend': ('tensorboard', 'tensorboardX'),
    'MLflowVisBackend': ('mlflow',),
    'ClearMLVisBackend': ('clearml',),
    'NeptuneVisBackend': ('neptune',),
    'DVCLiveVisBackend': ('dvclive',),
    'AimVisBackend': ('aim',),
}


class Length(NamedTuple):
    """How long a training loop of mmengine's is; None: unknown."""

    epochs: int | None
    iterations: int | None


def check_groups(cfg: Mapping[str, Any]) -> None:
    """As a Runner does: of what belongs together, all or nothing.

    Raises:
        UserError: Some of it is missing.
    """
    for group, names in GROUPS.items():
        missing = [name for name in names if cfg.get(name) is None]
        if missing and len(missing) < len(names):
            given = [name for name in names if name not in missing]
            raise UserError(
                f'{", ".join(missing)}: None found beside {", ".join(given)}, expected all of '
                f'{", ".join(names)} for {group}, or none'
            )
    scaling = cfg.get('auto_scale_lr') or {}
    if scaling.get('enable') and 'base_batch_size' not in scaling:
        raise UserError('auto_scale_lr: enable=True found, expected base_batch_size beside it')


def check_loops(cfg: Mapping[str, Any]) -> None:
    """The loops of training and validation, by type and arguments.

    Raises:
        UserError: A Runner could not build one, or it could not run.
    """
    loop = _loop('train_cfg', cfg.get('train_cfg'), ('runner', 'dataloader'))
    supplied = ('runner', 'dataloader', 'evaluator')
    if cfg.get('val_cfg') is not None:
        _loop('val_cfg', cfg['val_cfg'], supplied)
    given = cfg.get('train_cfg')
    if not (isinstance(loop, type) and issubclass(loop, (EpochBasedTrainLoop, IterBasedTrainLoop))):
        return
    name = 'max_epochs' if issubclass(loop, EpochBasedTrainLoop) else 'max_iters'
    if not isinstance(given[name], (int, float)) or int(given[name]) != given[name]:
        raise UserError(f'train_cfg.{name}: {given[name]!r} found, expected an integer')
    interval = given.get('val_interval', 1)
    if cfg.get('val_cfg') is not None and (not isinstance(interval, (int, float)) or not interval):
        raise UserError(f'train_cfg.val_interval: {interval!r} found, expected an integer from 1')


def _loop(place: str, config: Any, supplied: Sequence[str]) -> Any:
    """The class of a loop, whose arguments fit; None where the loop itself is given."""
    if not isinstance(config, Mapping):
        return None
    given = dict(config)
    if 'type' in given:
        if 'by_epoch' in given:
            raise UserError(f'{place}: type and by_epoch found, expected one of them')
        called = find(place, LOOPS, config)
    elif place != 'train_cfg':
        called = find(place, LOOPS, dict(type='mmengine.ValLoop'))
    elif 'by_epoch' not in given:
        raise UserError(f'{place}: {shown(given)} found, expected a type, or by_epoch')
    else:
        called = EpochBasedTrainLoop if given.pop('by_epoch') else IterBasedTrainLoop
    check_arguments(place, called, given, supplied)
    return called


def length_of(cfg: Mapping[str, Any], batches: int | None) -> Length:
    """How long training will be, as a Runner's loop says it.

    Args:
        cfg: The config; its loops fit.
        batches: Of one epoch; None: unknown.
    """
    loop = cfg.get('train_cfg') or {}
    if loop.get('max_epochs') is not None:
        return Length(loop['max_epochs'], batches and batches * int(loop['max_epochs']))
    return Length(1 if loop.get('max_iters') is not None else None, loop.get('max_iters'))


def check_evaluators(cfg: Mapping[str, Any]) -> None:
    """Build the metrics of validation; those of testing, which training never builds, are warned of.

    Raises:
        UserError: A metric of validation cannot be built.
    """
    _check_evaluator('val_evaluator', cfg.get('val_evaluator'))
    try:
        _check_evaluator('test_evaluator', cfg.get('test_evaluator'))
        if isinstance(cfg.get('test_cfg'), Mapping) and 'type' in cfg['test_cfg']:
            _loop('test_cfg', cfg['test_cfg'], ('runner', 'dataloader', 'evaluator'))
    except UserError as error:
        warn(f'{error} (training does not need it, testing will)')


def _check_evaluator(place: str, config: Any) -> None:
    if config is None or isinstance(config, Evaluator):
        return
    if isinstance(config, Mapping) and 'metrics' in config:
        called = find(place, EVALUATOR, {'type': 'Evaluator', **config})
        check_arguments(place, called, config)
        config, place = config['metrics'], f'{place}.metrics'
    for at, item in _items(place, config):
        if isinstance(item, Mapping):
            with _written_aside(item) as given:
                build(at, METRICS, given)


def check_log_processor(cfg: Mapping[str, Any]) -> None:
    """Build the log processor.

    Raises:
        UserError: It cannot be built.
    """
    config = cfg.get('log_processor')
    if isinstance(config, Mapping):
        build('log_processor', LOG_PROCESSORS, {'type': 'LogProcessor', **config})


def check_visualizer(cfg: Mapping[str, Any]) -> bool:
    """Visualizer and backends by type and arguments.

    The visualizer itself is built, without any backend, if it is one of the stack's: hooks ask for
    it as they are built.

    Returns:
        Whether hooks find what they find in a run, but for backends.

    Raises:
        UserError: A type or an argument does not exist, or the package of a backend is missing.
    """
    config = cfg.get('visualizer')
    if config is None:
        Visualizer.get_instance('visualizer')
        return True
    if not isinstance(config, Mapping):
        return False
    called = find('visualizer', VISUALIZERS, config)
    check_arguments('visualizer', called, config, ('name', 'save_dir'))
    for at, item in _items('visualizer.vis_backends', config.get('vis_backends')):
        if isinstance(item, Mapping):
            _check_backend(at, item)
    if not called.__module__.startswith(('mmengine.', 'mmseg.')):
        return False
    bare = {**config, 'vis_backends': None, 'save_dir': None}
    build('visualizer', VISUALIZERS, bare, name='visualizer')
    return True


def _check_backend(place: str, config: Mapping[str, Any]) -> None:
    called = find(place, VISBACKENDS, config)
    given = {key: value for key, value in config.items() if key != 'name'}
    check_arguments(place, called, given, ('save_dir',))
    if called.__module__.startswith('mmengine.'):
        packages = PACKAGES.get(called.__name__, ())
        if packages and not any(importlib.util.find_spec(name) for name in packages):
            raise UserError(
                f'{place}: {called.__name__} found, but {packages[0]} is not installed; expected '
                f'it: pip install {packages[0]}'
            )


def check_hooks(cfg: Mapping[str, Any], visualizer_is_there: bool) -> list[tuple[str, Any]]:
    """Build the hooks, default ones and custom ones.

    Args:
        cfg: The config.
        visualizer_is_there: Whether hooks can ask for it: see `check_visualizer`.

    Returns:
        Places and hooks.

    Raises:
        UserError: One cannot be built.
    """
    built = []
    for place, config in _hooks(cfg):
        if isinstance(config, Hook):
            built.append((place, config))
            continue
        if not isinstance(config, Mapping):
            raise UserError(f'{place}: {shown(config)} found, expected the config of a hook')
        given = dict(config)
        priority = given.pop('priority', None)
        try:
            with _written_aside(given) as aside:
                hook = build(place, HOOKS, aside)
            get_priority(hook.priority if priority is None else priority)
            built.append((place, hook))
        except UserError as error:
            if _would_be_raised_in_a_run(error.__cause__, visualizer_is_there):
                raise
        except (TypeError, ValueError) as error:
            raise UserError(f'{place}.priority: {priority!r} found: {told(error)}') from error
    return built


def _hooks(cfg: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, config in (cfg.get('default_hooks') or {}).items():
        if not (name in DEFAULT_HOOKS and config is None):
            yield f'default_hooks.{name}', config
    for i, config in enumerate(cfg.get('custom_hooks') or ()):
        yield f'custom_hooks.{i}', config


def _would_be_raised_in_a_run(cause: BaseException | None, visualizer_is_there: bool) -> bool:
    """Whether a hook fails whatever stands around it.

    There is no run yet that it could ask for its visualizer's backends and the like.
    """
    if cause is None or isinstance(cause, (TypeError, ImportError)):
        return True  # an unknown type, arguments, a package
    if isinstance(cause, RuntimeError) and 'get_current_instance' in str(cause):
        return visualizer_is_there  # of another kind than the hook asks for
    return isinstance(cause, MISTAKES) and not isinstance(cause, AttributeError)


def check_lengths(hooks: Sequence[tuple[str, Any]], length: Length) -> None:
    """What hooks compare with the length of training as it begins.

    Raises:
        UserError: A hook begins after the end.
    """
    for place, hook in hooks:
        for unit, most in (('epoch', length.epochs), ('iter', length.iterations)):
            begin = getattr(hook, f'begin_{unit}', None)
            if isinstance(hook, EMAHook) and most is not None and begin and begin > most:
                raise UserError(
                    f'{place}.begin_{unit}: {begin} found, expected at most {most}, where training '
                    'ends'
                )


def check_others(cfg: Mapping[str, Any]) -> None:
    """What is looked up by type alone.

    Raises:
        UserError: A type does not exist.
    """
    wrapper = cfg.get('model_wrapper_cfg')
    if isinstance(wrapper, Mapping) and cfg.get('launcher', 'none') != 'none':
        find('model_wrapper_cfg', MODEL_WRAPPERS, {'type': 'MMDistributedDataParallel', **wrapper})
    options = cfg.get('mix_and_match') or {}
    for at, item in _items('mix_and_match.augment', options.get('augment')):
        if isinstance(item, Mapping):
            find(at, TRANSFORMS, item)


@contextlib.contextmanager
def _written_aside(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A config whose folders to write to are temporary ones, for the length of the block.

    What a destructor clears must still be there: what was built has to be dropped inside.
    """
    with tempfile.TemporaryDirectory(prefix='mm_tuning_look_') as folder:
        named = [key for key in WRITTEN if isinstance(config.get(key), (str, Path))]
        yield {**config, **{key: str(Path(folder, key)) for key in named}}


def _items(place: str, config: Any) -> Iterator[tuple[str, Any]]:
    """The entries of a list, or the only one, each with its place."""
    if isinstance(config, (list, tuple)):
        yield from ((f'{place}.{i}', item) for i, item in enumerate(config))
    elif config is not None:
        yield place, config
