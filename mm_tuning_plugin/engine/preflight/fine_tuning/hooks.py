"""Hooks, built and dropped; the visualizer that they ask for, without its backends."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS, VISBACKENDS, VISUALIZERS
from mmengine.runner.priority import Priority, get_priority
from mmengine.visualization import Visualizer

from mm_tuning_plugin.config_types import ConfigMap
from mm_tuning_plugin.engine.common.messages import MISTAKES
from mm_tuning_plugin.engine.config.entry_types import shown
from mm_tuning_plugin.engine.preflight.fine_tuning.loops import Length
from mm_tuning_plugin.engine.preflight.fine_tuning.registered import (
    build,
    check_arguments,
    find,
    items,
    written_aside,
)
from mm_tuning_plugin.errors import UserError

# mmengine has them by default: only of these does None mean that there is to be none.
DEFAULT_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
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


def check_visualizer(cfg: ConfigMap) -> bool:
    """Check visualizer and backends by type and arguments: a built backend would announce a run.

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
    for at, item in items('visualizer.vis_backends', config.get('vis_backends')):
        if isinstance(item, Mapping):
            _check_backend(at, item)
    if not str(called.__module__).startswith(('mmengine.', 'mmseg.')):
        return False
    bare = {**config, 'vis_backends': None, 'save_dir': None}
    build('visualizer', VISUALIZERS, bare, name='visualizer')
    return True


def _check_backend(place: str, config: ConfigMap) -> None:
    called = find(place, VISBACKENDS, config)
    given = {key: value for key, value in config.items() if key != 'name'}
    check_arguments(place, called, given, ('save_dir',))
    if str(called.__module__).startswith('mmengine.'):
        packages = PACKAGES.get(called.__name__, ())
        if packages and not any(importlib.util.find_spec(name) for name in packages):
            raise UserError(
                place,
                f'{called.__name__} found, but {packages[0]} is not installed',
                f'install it by pip install {packages[0]}',
            )


def build_hooks(cfg: ConfigMap, visualizer_is_there: bool) -> list[tuple[str, Hook]]:
    """Build the hooks, default ones and custom ones.

    Args:
        cfg: The config.
        visualizer_is_there: Whether hooks can use it: see `check_visualizer`.

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
            raise UserError(place, f'{shown(config)} found', 'expected the config of a hook')
        given = dict(config)
        priority = given.pop('priority', None)
        try:
            with written_aside(given) as aside:
                hook = build(place, HOOKS, aside)
        except UserError as error:
            if _is_raised_in_a_run_too(error.__cause__, visualizer_is_there):
                raise
            continue
        _check_priority(place, hook.priority if priority is None else priority)
        built.append((place, hook))
    return built


def _hooks(cfg: ConfigMap) -> Iterator[tuple[str, Any]]:
    for name, config in (cfg.get('default_hooks') or {}).items():
        if not (name in DEFAULT_HOOKS and config is None):
            yield f'default_hooks.{name}', config
    yield from items('custom_hooks', list(cfg.get('custom_hooks') or ()))


def _is_raised_in_a_run_too(cause: BaseException | None, visualizer_is_there: bool) -> bool:
    """Whether a hook fails in any config.

    There is no run yet whose visualizer it could ask for a backend: it gets None.
    """
    if isinstance(cause, RuntimeError) and 'get_current_instance' in str(cause):
        return visualizer_is_there  # of another kind than the hook asks for
    for_want_of_a_run = isinstance(cause, AttributeError) or 'NoneType' in str(cause)
    return cause is None or (isinstance(cause, MISTAKES) and not for_want_of_a_run)


def _check_priority(place: str, priority: object) -> None:
    try:
        get_priority(priority)
    except (KeyError, TypeError, ValueError) as error:
        names = ', '.join(known.name for known in Priority)
        raise UserError(
            f'{place}.priority', f'{priority!r} found', f'expected 0 to 100 or one of {names}'
        ) from error


def check_lengths(hooks: Sequence[tuple[str, Hook]], length: Length) -> None:
    """What mmengine's EMAHook compares with the length of training as it begins.

    Raises:
        UserError: A hook begins after the end.
    """
    for place, hook in hooks:
        for unit, most in (('epoch', length.epochs), ('iter', length.iterations)):
            begin = getattr(hook, f'begin_{unit}', None)
            if isinstance(hook, EMAHook) and most is not None and begin and begin > most:
                raise UserError(
                    f'{place}.begin_{unit}',
                    f'{begin} found',
                    f'expected at most {most}, where training ends',
                )
