"""Finding, binding and building what a config names by ``type``; each mistake is one line.

Unprefixed types are meant in mmengine's current default scope, as a Runner means them.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import inspect
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from mmengine.registry import Registry

from mm_tuning_plugin.config_types import ConfigMap, PlainConfig
from mm_tuning_plugin.errors import UserError

# Arguments that name a folder to write to, which some constructors make and some destructors clear.
WRITTEN = ('out_dir', 'output_dir', 'save_dir', 'result_path')
CORRECT = 'correct this entry of the config'  # if only a foreign exception says what is wrong
_NOT_REGISTERED = re.compile(r'^(\S+) is not in the (?:\S+::)?(\S.*?) registry\b')


def find(place: str, root: Registry, config: ConfigMap) -> Callable[..., Any]:
    """Return what a config's ``type`` names: a registered object, or the object itself.

    Args:
        place: Of the config, in dotted words.
        root: The registry that mmengine looks it up in.
        config: It.

    Raises:
        UserError: There is no type, or it is not registered.
    """
    kind = config.get('type')
    if callable(kind):
        return kind
    if not isinstance(kind, str):
        raise UserError(place, f'type {kind!r} found', 'expected a registered name or a class')
    with root.switch_scope_and_registry(config.get('_scope_')) as registry:
        try:
            found = registry.get(kind)
        except Exception as error:  # modules of the user's are imported
            raise UserError(
                place, f'type {kind!r} cannot be found: {one_line(error)}', CORRECT
            ) from error
        if found is None:
            raise _unknown(place, kind, registry)
    return found


def check_arguments(
    place: str, called: Callable[..., Any], config: ConfigMap, supplied: Iterable[str] = ()
) -> None:
    """Refuse arguments that a class or function does not take; nothing is called.

    Args:
        place: Of the config, in dotted words.
        called: What will be called.
        config: Its arguments, and ``type``.
        supplied: Names of what a Runner adds.

    Raises:
        UserError: One is missing or unknown.
    """
    try:
        signature = inspect.signature(called)
    except (ValueError, TypeError):  # of a compiled one nothing is known
        return
    own = {key: value for key, value in config.items() if key not in ('type', '_scope_')}
    try:
        signature.bind(**{**dict.fromkeys(supplied), **own})
    except TypeError as error:
        name = getattr(called, '__name__', str(called))
        known = [key for key in signature.parameters if key not in supplied]
        raise UserError(
            place, f'{name} {error}', f'expected its own arguments: {", ".join(known) or "none"}'
        ) from error


def build(place: str, root: Registry, config: ConfigMap, **supplied: Any) -> Any:
    """Build what a config describes, as mmengine builds it.

    Args:
        place: Of the config, in dotted words.
        root: The registry that mmengine builds it from.
        config: It; not changed.
        supplied: What a Runner adds.

    Raises:
        UserError: It cannot be built.
    """
    called = find(place, root, config)
    check_arguments(place, called, config, supplied)
    try:
        return root.build(copy.deepcopy(config), default_args=supplied)
    except UserError:
        raise
    except Exception as error:  # constructors of the user's can raise anything
        raise mistake(place, getattr(called, '__name__', str(called)), error, root) from error


def mistake(place: str, name: str, error: Exception, root: Registry | None = None) -> UserError:
    """The one line for something that cannot be built.

    Args:
        place: Of its config, in dotted words.
        name: What it is called.
        error: The exception.
        root: The registry that it is built from.
    """
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    unknown = _NOT_REGISTERED.match(text)
    if unknown and root is not None:  # in its own config, or deeper
        with root.switch_scope_and_registry(None) as registry:
            return _unknown(place, unknown[1], registry)
    if isinstance(error, UserError):
        problem = f'{name} cannot be built: {error.where}: {error.problem}'
        return UserError(place, problem, error.remedy)
    return UserError(place, f'{name} cannot be built: {one_line(error)}', CORRECT)


def one_line(error: Exception) -> str:
    """Return the message of an exception in one line."""
    text = str(error) if isinstance(error, UserError) else f'{type(error).__name__}: {error}'
    return ' '.join(text.split())


def _unknown(place: str, kind: str, registry: Registry) -> UserError:
    """Report a name that is not registered, with the nearest registered one."""
    names: set[str] = set()
    level: Registry | None = registry
    while level is not None:
        names |= set(level.module_dict)
        level = level.parent
    near = difflib.get_close_matches(kind.rsplit('.', 1)[-1], sorted(names), n=1)
    nearest = f' (the nearest known one is {near[0]})' if near else ''
    return UserError(
        place, f'type {kind!r} found', f'expected a registered {registry.name}{nearest}'
    )


@contextlib.contextmanager
def written_aside(config: ConfigMap) -> Iterator[PlainConfig]:
    """A config whose folders to write to are temporary ones, for the length of the block.

    Destructors need what they clear, so built objects have to be dropped inside the block.
    """
    named = [key for key in WRITTEN if isinstance(config.get(key), (str, Path))]
    if not named:
        yield dict(config)
        return
    with tempfile.TemporaryDirectory(prefix='mm_tuning_look_') as folder:
        yield {**config, **{key: str(Path(folder, key)) for key in named}}


def items(place: str, config: object) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a list, or a single entry, with their places; nothing for None."""
    if isinstance(config, (list, tuple)):
        yield from ((f'{place}.{i}', item) for i, item in enumerate(config))
    elif config is not None:
        yield place, config
