"""Messages of a run to its user."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.logging import print_log

from mm_tuning_plugin.errors import UserError

# What mmengine raises for a config that it cannot make anything of.
MISTAKES = (
    KeyError, TypeError, ValueError, AttributeError, AssertionError, ImportError, FileNotFoundError,
)  # fmt: skip


def warn(message: str) -> None:
    """Log one line as a warning."""
    print_log(message, logger='current', level=logging.WARNING)


@contextmanager
def config_named(*more: type[Exception]) -> Iterator[None]:
    """Around the building of a config: what it raises becomes one line.

    Args:
        *more: Further exceptions that are mistakes of the config, besides `MISTAKES`.

    Raises:
        UserError: Something in the config cannot be built.
    """
    try:
        yield
    except UserError:
        raise
    except (*MISTAKES, *more) as error:
        raise config_mistake(error) from error


def config_mistake(error: Exception) -> UserError:
    """The one line for an error that the config is the cause of."""
    reason = ' '.join(f'{type(error).__name__}: {error}'.split())
    return UserError('config', f'it cannot be built: {reason}', 'correct what is named there')
