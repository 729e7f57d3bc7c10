"""``mm-tuning list``: list registered objects by concept, one line each."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Callable

from mm_tuning_plugin.cli.common.environment import require_stack
from mm_tuning_plugin.cli.common.run import run
from mm_tuning_plugin.cli.common.usage import make_parser
from mm_tuning_plugin.errors import UserError

if TYPE_CHECKING:
    from mmengine.registry import Registry

SCRIPT = 'list.py'

Row = tuple[str, str]
"""A name, and what it stands for in one line."""


def first_line(text: str | None) -> str:
    """The first line of a docstring; '' if there is none."""
    return (text or '').strip().partition('\n')[0]


def registered(registry: Registry) -> list[Row]:
    """All classes of a registry of this package, under their full names."""
    registry.import_from_location()
    rows = [
        (f'{registry.scope}.{name}', first_line(entry.__doc__))
        for name, entry in registry.module_dict.items()
    ]
    return sorted(rows)


def losses() -> list[Row]:
    """The losses of nodes, with the short names that the option `loss` takes."""
    from mm_tuning_plugin.losses.base import named_losses
    from mm_tuning_plugin.registry import MODELS

    rows = []
    for name, named in named_losses().items():
        fixed = ''.join(f', {key}={value!r}' for key, value in named.arguments.items())
        rows.append((name, f'{named.type}{fixed}: {first_line(named.loss.__doc__)}'))
    in_use = {named.type for named in named_losses().values()}
    others = [row for row in _of_package(MODELS, 'losses') if row[0] not in in_use]
    return rows + others


def nodes() -> list[Row]:
    """The kinds of nodes that the option `nodes` takes."""
    from mm_tuning_plugin.nodes.base import node_kind, node_kinds

    return [(name, first_line(type(node_kind(name)).__doc__)) for name in node_kinds()]


def proxies() -> list[Row]:
    """The proxy tasks: those that are registered, and those that are trained with mmpretrain."""
    from mm_tuning_plugin.cli.train import MMPRETRAIN_TASKS
    from mm_tuning_plugin.registry import MODELS

    rows = registered(MODELS)
    own = [row for row in rows if getattr(MODELS.get(row[0]), 'proxy_task', False)]
    return own + [(f'mmpretrain.{name}', 'needs mmpretrain') for name in MMPRETRAIN_TASKS]


def recipes() -> list[Row]:
    """The recipes, with the options whose defaults they change."""
    from mm_tuning_plugin.recipes.base import recipes as known_recipes

    return [
        (name, ', '.join([recipe.summary, *(f'{k}={v!r}' for k, v in recipe.defaults.items())]))
        for name, recipe in known_recipes().items()
    ]


def namings() -> list[Row]:
    """The naming conventions that a checkpoint may follow."""
    from mm_tuning_plugin.checkpoint.naming import all_namings

    return [(naming.title, first_line(naming.rename.__doc__)) for naming in all_namings()]


def _of_package(registry: Registry, package: str) -> list[Row]:
    """The classes of a registry that one subpackage defines."""
    start = f'{registry.scope}.{package}.'
    return [
        (name, text)
        for name, text in registered(registry)
        if registry.module_dict[name.rpartition('.')[2]].__module__.startswith(start)
    ]


def _all_of(name: str) -> Callable[[], list[Row]]:
    """List a whole registry, which is imported only then."""

    def rows() -> list[Row]:
        from mm_tuning_plugin import registry

        return registered(getattr(registry, name))

    return rows


CONCEPTS: dict[str, Callable[[], Iterable[Row]]] = {
    'losses': losses,
    'nodes': nodes,
    'proxies': proxies,
    'recipes': recipes,
    'namings': namings,
    'hooks': _all_of('HOOKS'),
    'transforms': _all_of('TRANSFORMS'),
    'samplers': _all_of('DATA_SAMPLERS'),
    'metrics': _all_of('METRICS'),
}


def build_parser(prog: str = SCRIPT) -> argparse.ArgumentParser:
    """The options of the command."""
    parser = make_parser(
        prog,
        'Print what this package registers, by concept, one line each: its name and what it does. '
        'In a config, write the names that contain a dot as a type.',
        ['', 'losses'],
    )
    parser.add_argument('concept', nargs='?', help=f'print only one of: {", ".join(CONCEPTS)}')
    return parser


def chosen_concepts(concept: str | None) -> list[str]:
    """The concepts to print.

    Raises:
        UserError: The concept does not exist.
    """
    if concept is None:
        return list(CONCEPTS)
    if concept not in CONCEPTS:
        nearest = difflib.get_close_matches(concept.lower(), CONCEPTS, n=1, cutoff=0.0)[0]
        raise UserError(
            'CONCEPT',
            f'there is no {concept!r}',
            f'use {nearest}, the nearest one of {", ".join(CONCEPTS)}',
        )
    return [concept]


def main(argv: Sequence[str] | None = None, prog: str = SCRIPT) -> None:
    """Print the registered objects.

    Raises:
        UserError: The concept does not exist, or the OpenMMLab packages do not import.
    """
    concepts = chosen_concepts(build_parser(prog).parse_args(argv).concept)
    require_stack()
    blocks = []
    for concept in concepts:
        rows = list(CONCEPTS[concept]())
        width = max(len(name) for name, _ in rows)
        lines = [f'  {name:<{width}}  {text}'.rstrip() for name, text in rows]
        blocks.append('\n'.join([f'{concept}:', *lines]))
    print('\n\n'.join(blocks))


def entry(argv: Sequence[str] | None = None, prog: str = SCRIPT) -> int:
    """Run the command; return its exit status."""
    return run(partial(main, prog=prog), argv)


if __name__ == '__main__':
    sys.exit(entry())
