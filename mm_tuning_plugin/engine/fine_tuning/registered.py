"""Finding, binding and building what a config names by ``type``; each mistake is one line.

Unprefixed types are meant in mmengine's current default scope, as a Runner means them.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mmengine.registry import Registry

from mm_tuning_plugin.engine.kinds import shown
from mm_tuning_plugin.errors import UserError

_NOT_REGISTERED = re.compile(r'^(\S+) is not in the (?:\S+::)?(\S.*?) registry\b')


def find(place: str, root: Registry, config: Mapping[str, Any]) -> Callable[..., Any]:
    """What a config's ``type`` stands for: registered under a name, or the thing itself.

    Args:
        place: Of the config, in dotted words.
        root: The registry that mmengine looks it up in.
        config: It.

    Raises:
        UserError: There is no type, or nobody registered it.
    """
    kind = config.get('type')
    if callable(kind):
        return kind
    if not isinstance(kind, str):
        raise UserError(f'{place}: type {kind!r} found, expected a registered name or a class')
    with root.switch_scope_and_registry(config.get('_scope_')) as registry:
        try:
            found = registry.get(kind)
        except Exception as error:  # modules of the user's are imported
            raise UserError(f'{place}: type {kind!r} cannot be found: {told(error)}') from error
        if found is None:
            raise UserError(
                f'{place}: type {kind!r} found, expected the registered name of a '
                f'{registry.name}{_nearest(kind, registry)}'
            )
    return found


def check_arguments(
    place: str, called: Callable[..., Any], config: Mapping[str, Any], supplied: Iterable[str] = ()
) -> None:
    """Refuse arguments that a class or function does not take; nothing is called.

    Args:
        place: Of the config, in dotted words.
        called: What will be called.
        config: Its arguments, beside ``type``.
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
            f'{place}: {name} {error}; expected its own arguments: {", ".join(known)}'
        ) from error


def build(place: str, root: Registry, config: Mapping[str, Any], **supplied: Any) -> Any:
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
        return root.build(config.copy(), default_args=supplied)
    except UserError:
        raise
    except Exception as error:  # constructors of the user's can raise anything
        raise mistake(f'{place}: {getattr(called, "__name__", called)}', error) from error


def mistake(what: str, error: Exception) -> UserError:
    """The one line for something that cannot be built."""
    return UserError(f'{what} cannot be built: {told(error)}')


def told(error: Exception) -> str:
    """What an exception says, in one line; of an unknown type that alone, without advice."""
    if isinstance(error, UserError):
        return str(error)
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    unknown = _NOT_REGISTERED.match(text)
    if unknown:
        return f'type {unknown[1]!r} found, expected the registered name of a {unknown[2]}'
    return shown_whole(f'{type(error).__name__}: {text}')


def shown_whole(text: str) -> str:
    """A text in one line, whatever it holds."""
    return ' '.join(text.split())


def _nearest(kind: str, registry: Registry) -> str:
    names: set[str] = set()
    level: Registry | None = registry
    while level is not None:
        names |= set(level.module_dict)
        level = level.parent
    near = difflib.get_close_matches(kind.rsplit('.', 1)[-1], sorted(names), n=1)
    return f'; the nearest known one is {near[0]}' if near else ''


def described(config: Any) -> str:
    """A config's type for a message."""
    kind = config.get('type') if isinstance(config, Mapping) else config
    return shown(kind) if not callable(kind) else getattr(kind, '__name__', str(kind))
