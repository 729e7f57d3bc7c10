"""From the names that other projects give to a network's tensors to those of mmseg's backbones.

One module a family of networks, one small pure function a convention. A module lists its
conventions in ``NAMINGS`` and is found by being in this folder. Names that a convention does not
know pass through unchanged, so it may be tried on any file: the search (`match.fit`) keeps the one
under which most parameters find their place. Of equals the first wins, and ``RANK`` says the order:
a module without one comes last.
"""

from __future__ import annotations

from torch import nn

from mm_tuning_plugin.discovery import import_modules

from .rules import Naming, Rename, Tensors
from .transformers_own import own_namings

_LAST = 100
NAMINGS: tuple[Naming, ...] = tuple(
    naming
    for module in sorted(
        import_modules(__name__, __path__), key=lambda m: getattr(m, 'RANK', _LAST)
    )
    for naming in getattr(module, 'NAMINGS', ())
)

_registered: list[Naming] = []


def register_naming(naming: Naming) -> Naming:
    """Make the loader try a further convention, after those of `NAMINGS`.

    Call it in a module that the config names in ``custom_imports``. One of the same title is
    replaced, so that a module may be imported twice.

    Raises:
        ValueError: The package has a convention of that title.
    """
    if any(known.title == naming.title for known in NAMINGS):
        raise ValueError(f'naming {naming.title!r} found, expected a title that is not taken')
    _registered[:] = [known for known in _registered if known.title != naming.title] + [naming]
    return naming


def all_namings() -> tuple[Naming, ...]:
    """The package's conventions and the registered ones, in the order in which they are tried."""
    return (*NAMINGS, *_registered)


def namings_for(backbone: nn.Module) -> tuple[Naming, ...]:
    """All conventions, and those that a backbone's own class knows."""
    return (*all_namings(), *own_namings(backbone))


__all__ = [
    'NAMINGS',
    'Naming',
    'Rename',
    'Tensors',
    'all_namings',
    'namings_for',
    'register_naming',
]
