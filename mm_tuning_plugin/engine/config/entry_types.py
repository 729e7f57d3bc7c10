"""Types that the entries of a user's config must have.

They are checked before anything is read, so that a typo anywhere gives a one-line error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mm_tuning_plugin.config_types import ConfigMap
from mm_tuning_plugin.errors import UserError

LONGEST = 120  # characters of a value that an error shows


class EntryType(NamedTuple):
    """A type that an entry must have.

    Attributes:
        fits: Whether a value has this type.
        description: What error messages call it.
    """

    fits: Callable[[Any], bool]
    description: str


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


CONFIG = EntryType(lambda value: isinstance(value, Mapping), 'a dict')
TEXT = EntryType(lambda value: isinstance(value, str), 'a string')
INTEGER = EntryType(_is_integer, 'an integer')
NUMBERS = EntryType(
    lambda value: _is_list(value) and all(isinstance(v, (int, float)) for v in value),
    'a list of numbers',
)
NAMES = EntryType(
    lambda value: _is_list(value) and all(isinstance(v, str) for v in value),
    'a list of names, or a file of them',
)
CONFIGS = EntryType(
    lambda value: _is_list(value) and all(isinstance(v, Mapping) for v in value),
    'a list of dicts',
)
SOME_CONFIGS = EntryType(
    lambda value: CONFIGS.fits(value) and bool(value), 'a list of dicts, not empty'
)
_PREPROCESSOR = {'mean': NUMBERS, 'std': NUMBERS, 'seg_pad_val': INTEGER}
# In the order of the checks: an entry stands before the entries inside it.
ENTRY_TYPES: dict[str, EntryType] = {
    'work_dir': TEXT,
    'default_scope': TEXT,
    'model': CONFIG,
    'model.data_preprocessor': CONFIG,
    **{f'model.data_preprocessor.{key}': kind for key, kind in _PREPROCESSOR.items()},
    'data_preprocessor': CONFIG,
    **{f'data_preprocessor.{key}': kind for key, kind in _PREPROCESSOR.items()},
    'train_dataloader': CONFIG,
    'val_dataloader': CONFIG,
    'optim_wrapper': CONFIG,
    'default_hooks': CONFIG,
    'default_hooks.logger': CONFIG,
    'default_hooks.logger.interval': INTEGER,
    'custom_hooks': CONFIGS,
    'visualizer': CONFIG,
    'randomness': CONFIG,
    'randomness.seed': INTEGER,
}


def check_entry_types(cfg: ConfigMap) -> None:
    """Check the types of the entries that exist. Missing entries are reported where they are read.

    Raises:
        UserError: An entry has another type.
    """
    for place, entry_type in ENTRY_TYPES.items():
        value: Any = cfg
        for key in place.split('.'):
            value = value.get(key) if value is not None else None
        require(place, value, entry_type)


def require(place: str, value: object, entry_type: EntryType) -> None:
    """Check that a value is None or has the given type.

    Raises:
        UserError: It has another type.
    """
    if value is not None and not entry_type.fits(value):
        raise UserError(place, f'{shown(value)} found', f'expected {entry_type.description}')


def shown(value: object) -> str:
    """Format a value for an error message: one line, shortened if it is long."""
    text = ' '.join(repr(value).split())
    return text if len(text) <= LONGEST else f'{text[:LONGEST]}...'


def steps_of(dataset: ConfigMap) -> list[ConfigMap]:
    """Return the transforms of a data set's config, an empty list if it has no pipeline.

    Raises:
        UserError: The pipeline is not a list of configs.
    """
    steps = dataset.get('pipeline')
    require('dataset.pipeline', steps, CONFIGS)
    return list(steps or ())
