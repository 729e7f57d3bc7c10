"""Of what kind the entries of a user's config must be, as far as the tuning plan reads them.

Looked at once, before anything is read, so that a slip of the pen is one line wherever it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mm_tuning_plugin.errors import UserError

LONGEST = 120  # characters of a value that an error shows


class Kind(NamedTuple):
    """One kind of value.

    Attributes:
        fits: Whether a value is of it.
        words: What errors call it.
    """

    fits: Callable[[Any], bool]
    words: str


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


CONFIG = Kind(lambda value: isinstance(value, Mapping), 'a dict')
TEXT = Kind(lambda value: isinstance(value, str), 'a string')
INTEGER = Kind(_is_integer, 'an integer')
NUMBERS = Kind(
    lambda value: _is_list(value) and all(isinstance(v, (int, float)) for v in value),
    'a list of numbers',
)
NAMES = Kind(
    lambda value: _is_list(value) and all(isinstance(v, str) for v in value),
    'a list of names, or a file of them',
)
CONFIGS = Kind(
    lambda value: _is_list(value) and all(isinstance(v, Mapping) for v in value),
    'a list of dicts',
)
SOME_CONFIGS = Kind(lambda value: CONFIGS.fits(value) and bool(value), 'a list of dicts, not empty')
_PREPROCESSOR = {'mean': NUMBERS, 'std': NUMBERS, 'seg_pad_val': INTEGER}
# In the order in which they are looked at: what is inside another entry behind it.
KINDS: dict[str, Kind] = {
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


def check_kinds(cfg: Mapping[str, Any]) -> None:
    """Look at the entries that there are; which must be there is said where they are read.

    Raises:
        UserError: One is of another kind.
    """
    for place, kind in KINDS.items():
        value: Any = cfg
        for key in place.split('.'):
            value = value.get(key) if value is not None else None
        require(place, value, kind)


def require(place: str, value: Any, kind: Kind) -> None:
    """Refuse a value that is neither None nor of a kind.

    Raises:
        UserError: It is of another kind.
    """
    if value is not None and not kind.fits(value):
        raise UserError(place, f'{shown(value)} found', f'expected {kind.words}')


def shown(value: Any) -> str:
    """A value in a line of its own, cut where it is long."""
    text = ' '.join(repr(value).split())
    return text if len(text) <= LONGEST else f'{text[:LONGEST]}...'


def steps_of(dataset: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The transforms of a data set's config; none where it has no pipeline.

    Raises:
        UserError: The pipeline is no list of configs.
    """
    steps = dataset.get('pipeline')
    require('dataset.pipeline', steps, CONFIGS)
    return list(steps or ())
