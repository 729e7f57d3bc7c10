"""``tools/list.py``: what is registered, by concept."""

from __future__ import annotations

import argparse
import difflib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from mm_tuning_plugin.cli.environment import require_stack
from mm_tuning_plugin.cli.run import run
from mm_tuning_plugin.cli.usage import make_parser
from mm_tuning_plugin.errors import UserError

SCRIPT = 'list.py'


def build_parser(prog: str = SCRIPT) -> argparse.ArgumentParser:
    """The options of the command."""
    parser = make_parser(
        prog,
        'List what is registered: losses, kinds of nodes, recipes, proxy tasks, namings of '
        'checkpoints, and the classes that configs may name.',
        ['', 'losses'],
    )
    parser.add_argument('concepts', nargs='*', metavar='CONCEPT', help=', '.join(CONCEPTS))
    parser.add_argument(
        '--import',
        dest='modules',
        nargs='+',
        default=[],
        metavar='MODULE',
        help='modules of your own that register more',
    )
    return parser


def losses() -> Mapping[str, str]:
    """Short names of ``mix_and_match.loss``."""
    from mm_tuning_plugin.losses.base import named_losses

    return {name: summary(named.loss) for name, named in named_losses().items()}


def nodes() -> Mapping[str, str]:
    """Values of ``mix_and_match.nodes``."""
    from mm_tuning_plugin.nodes.base import node_kinds

    return {name: summary(kind) for name, kind in node_kinds().items()}


def recipes() -> Mapping[str, str]:
    """Values of ``mix_and_match.recipe``, with the options that they change."""
    from mm_tuning_plugin.engine.config.options import OPTIONS

    changed = [f'{each.name}={each.paper!r}' for each in OPTIONS if each.paper != each.default]
    return {'default': 'the defaults of all options', 'paper': ', '.join(changed)}


def proxies() -> Mapping[str, str]:
    """Models that ``mm-tuning train`` trains as proxy tasks."""
    return {
        name: text
        for name, text in registered('MODELS').items()
        if getattr(classes('MODELS')[name.split('.')[1]], 'proxy_task', False)
    }


def namings() -> Mapping[str, str]:
    """Conventions of names that the checkpoint loader tries, in this order."""
    from mm_tuning_plugin.checkpoint.naming import all_namings

    return {naming.title: summary(naming.rename) for naming in all_namings()}


def registered(registry: str) -> Mapping[str, str]:
    """The classes of one registry."""
    found = classes(registry)
    return {f'mm_tuning_plugin.{name}': summary(found[name]) for name in sorted(found)}


def classes(registry: str) -> Mapping[str, type]:
    """The classes of one registry by their names, all of its locations imported."""
    from mm_tuning_plugin import registry as registries

    found = getattr(registries, registry)
    found.import_from_location()
    return dict(found.module_dict)


def summary(thing: object) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(thing) or '').partition('\n')[0]


CONCEPTS: dict[str, Callable[[], Mapping[str, str]]] = {
    'losses': losses,
    'nodes': nodes,
    'recipes': recipes,
    'proxies': proxies,
    'namings': namings,
    'models': partial(registered, 'MODELS'),
    'transforms': partial(registered, 'TRANSFORMS'),
    'samplers': partial(registered, 'DATA_SAMPLERS'),
    'datasets': partial(registered, 'DATASETS'),
    'hooks': partial(registered, 'HOOKS'),
    'metrics': partial(registered, 'METRICS'),
    'runners': partial(registered, 'RUNNERS'),
}


def main(argv: Sequence[str] | None = None, prog: str = SCRIPT) -> None:
    """Print the concepts that are named, or all.

    Raises:
        UserError: There is no such concept, or a module cannot be imported.
    """
    args = build_parser(prog).parse_args(argv)
    for name in args.concepts:
        if name not in CONCEPTS:
            near = difflib.get_close_matches(name.lower(), CONCEPTS, n=1, cutoff=0.0)
            raise UserError(
                'CONCEPT', f'{name!r} is unknown', f'the nearest is {near[0]}, of {_names()}'
            )
    require_stack()
    import_modules(args.modules)
    for name in args.concepts or CONCEPTS:
        print(f'{name}:')
        found = CONCEPTS[name]()
        width = max(map(len, found), default=0)
        for each, text in found.items():
            print(f'  {each:<{width}}  {text}'.rstrip())


def import_modules(names: Sequence[str]) -> None:
    """Import modules of the user's, as ``custom_imports`` does.

    Raises:
        UserError: One cannot be imported.
    """
    from mmengine.utils import import_modules_from_strings

    for name in names:
        try:
            import_modules_from_strings(name)
        except Exception as error:
            reason = ' '.join(f'{type(error).__name__}: {error}'.split())
            raise UserError(
                f'--import {name}', reason, 'expected a module that Python can import'
            ) from error


def _names() -> str:
    return ', '.join(CONCEPTS)


def entry(argv: Sequence[str] | None = None, prog: str = SCRIPT) -> int:
    """Run the command; return its exit status."""
    return run(partial(main, prog=prog), argv)


if __name__ == '__main__':
    sys.exit(entry())
