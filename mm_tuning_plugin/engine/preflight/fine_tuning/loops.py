"""Loops of a Runner by type and arguments: they cannot be built without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mm_tuning_plugin.config_types import ConfigMap
from mm_tuning_plugin.engine.config.entry_types import shown
from mm_tuning_plugin.engine.preflight.fine_tuning.registered import check_arguments, find
from mm_tuning_plugin.errors import UserError

SUPPLIED = ('runner', 'dataloader', 'evaluator')  # by a Runner


class Length(NamedTuple):
    """How long a training loop of mmengine's is; None: unknown."""

    epochs: int | None
    iterations: int | None


def check_loops(cfg: ConfigMap) -> None:
    """The loops of training and validation.

    Raises:
        UserError: A Runner could not build one, or it could not run.
    """
    loop = check_loop('train_cfg', cfg.get('train_cfg'), SUPPLIED[:2])
    if cfg.get('val_cfg') is not None:
        check_loop('val_cfg', cfg['val_cfg'])
    if not (isinstance(loop, type) and issubclass(loop, (EpochBasedTrainLoop, IterBasedTrainLoop))):
        return
    given = cfg['train_cfg']
    name = 'max_epochs' if issubclass(loop, EpochBasedTrainLoop) else 'max_iters'
    most = given.get(name)
    if most is not None and (not isinstance(most, (int, float)) or int(most) != most):
        raise UserError(f'train_cfg.{name}', f'{most!r} found', 'expected an integer')
    interval = given.get('val_interval', 1)
    if cfg.get('val_cfg') is not None and (not isinstance(interval, (int, float)) or not interval):
        raise UserError(
            'train_cfg.val_interval', f'{interval!r} found', 'expected an integer from 1'
        )


def check_loop(place: str, config: object, supplied: Sequence[str] = SUPPLIED) -> Any:
    """One loop.

    Args:
        place: Its name in the config.
        config: It.
        supplied: Names of what a Runner adds.

    Returns:
        Its class; None where no config of it is given but the loop itself.

    Raises:
        UserError: A Runner could not build it.
    """
    if not isinstance(config, Mapping):
        return None
    given = dict(config)
    if 'type' in given:
        if place == 'train_cfg' and 'by_epoch' in given:
            raise UserError(place, 'type and by_epoch found', 'expected one of them')
        called = find(place, LOOPS, config)
    elif place != 'train_cfg':
        kind = 'ValLoop' if place == 'val_cfg' else 'TestLoop'
        called = find(place, LOOPS, dict(type=f'mmengine.{kind}'))
    elif 'by_epoch' not in given:
        raise UserError(place, f'{shown(given)} found', 'expected a type, or by_epoch')
    else:
        called = EpochBasedTrainLoop if given.pop('by_epoch') else IterBasedTrainLoop
    check_arguments(place, called, given, supplied)
    return called


def length_of(cfg: ConfigMap, batches: int | None) -> Length:
    """Return the length of training, from mmengine's own loops.

    Args:
        cfg: The config; its loops fit.
        batches: Of one epoch; None: unknown.
    """
    loop = cfg.get('train_cfg') or {}
    if loop.get('max_epochs') is not None:
        return Length(loop['max_epochs'], batches and batches * int(loop['max_epochs']))
    return Length(1 if loop.get('max_iters') is not None else None, loop.get('max_iters'))
