"""Which code determines weights: what a step imports, but for what only shows and measures.

Comments, docstrings and layout do not count, so that a file may be explained better without one
cached artefact being made again.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAME = 'mm_tuning_plugin'
PACKAGE = Path(__file__).resolve().parents[1]
ROOT = 'benchmark.work'  # makes every cached artefact
REGISTRY = 'registry'  # it names modules that mmengine imports for it
# They show, say, measure or name what was made. What only these import does not count either.
SHOWS = (
    'visualization', 'evaluation', 'cli', 'errors', 'engine.watch', 'engine.run_report',
    'engine.scalars', 'engine.class_iou', 'engine.picture_hooks', 'engine.picture_sources',
    'engine.picture_captions', 'engine.snapshots', 'engine.observe', 'engine.versions',
    'engine.messages', 'engine.fingerprint', 'benchmark.code', 'benchmark.fingerprints',
    'benchmark.retrieval', 'benchmark.settings', 'benchmark.steps',
)  # fmt: skip


@functools.cache
def code_digest(package: Path = PACKAGE) -> str:
    """12 hex digits of the code that determines weights, as it is now."""
    digest = hashlib.sha256()
    for name, tree in counted_code(package).items():
        digest.update(f'{name}\n{_plain(tree)}\n'.encode())
    return digest.hexdigest()[:12]


def counted_code(package: Path = PACKAGE) -> dict[str, ast.Module]:
    """The source files that determine weights: what `ROOT` imports, at once or late.

    Returns:
        Their paths below the package, in order, and their syntax trees.
    """
    found: dict[str, ast.Module] = {}
    left = [ROOT]
    while left:
        module = left.pop()
        path = _source(package, module)
        if path is None or _shows(module):
            continue
        name = path.relative_to(package).as_posix()
        if name not in found:
            found[name] = ast.parse(path.read_text(encoding='utf-8'))
            left += _imported(module, path, found[name])
            left.append(module.rpartition('.')[0])  # a module's packages are imported before it
    return dict(sorted(found.items()))


def _shows(module: str) -> bool:
    return any(module == name or module.startswith(f'{name}.') for name in SHOWS)


def _source(package: Path, module: str) -> Path | None:
    """The file of a module, named from the package on; None for what is no module of it."""
    path = package.joinpath(*filter(None, module.split('.')))
    candidates = [path / '__init__.py', *([path.with_suffix('.py')] if module else [])]
    return next((file for file in candidates if file.is_file()), None)


def _imported(module: str, path: Path, tree: ast.Module) -> Iterator[str]:
    """What a module imports of the package; names of classes are among it."""
    package = module if path.name == '__init__.py' else module.rpartition('.')[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            stem = _absolute(package, node)
            names = [stem, *(f'{stem}.{alias.name}' for alias in node.names)]
        elif module == REGISTRY and isinstance(node, ast.Constant) and _is_dotted(node.value):
            names = [f'{NAME}.{node.value}']
        else:
            continue
        yield from (name[len(NAME) + 1 :] for name in names if f'{name}.'.startswith(f'{NAME}.'))


def _absolute(package: str, node: ast.ImportFrom) -> str:
    """The module that names are taken from, in full."""
    parts = [NAME, *filter(None, package.split('.'))]
    own = parts[: len(parts) - node.level + 1] if node.level else []
    return '.'.join([*own, *filter(None, [node.module])])


def _is_dotted(value: Any) -> bool:
    return isinstance(value, str) and all(part.isidentifier() for part in value.split('.'))


def _plain(node: Any) -> Any:
    """A syntax tree as nested tuples, alike under every Python; texts that do nothing are out."""
    if isinstance(node, ast.AST):
        fields = ((name, _plain(value)) for name, value in ast.iter_fields(node) if name != 'kind')
        return (type(node).__name__, *(item for item in fields if item[1] not in (None, ())))
    if isinstance(node, list):
        return tuple(_plain(item) for item in node if not _is_text(item))
    return node


def _is_text(node: Any) -> bool:
    """Whether a statement is a text, as docstrings are."""
    expression = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return expression and isinstance(node.value.value, str)
