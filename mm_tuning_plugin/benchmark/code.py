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
from typing import Any, NamedTuple

NAME = 'mm_tuning_plugin'
PACKAGE = Path(__file__).resolve().parents[1]
ROOT = 'benchmark.worker.step_kinds'  # makes every cached artefact
REGISTRY = 'registry'  # it names modules that mmengine imports
# They only show or measure results. Modules that only they import do not count either.
SHOWS = (
    'visualization', 'evaluation', 'cli', 'errors', 'extras', 'inspection',
    'engine.monitor', 'engine.report', 'engine.pictures', 'engine.hooks.class_iou',
    'engine.common.messages', 'engine.reuse.fingerprint', 'benchmark.code',
    'benchmark.fingerprints', 'benchmark.settings', 'benchmark.steps',
    'benchmark.worker.retrieval', 'benchmark.worker.observe_hook',
)  # fmt: skip


class Source(NamedTuple):
    """The relevant content of a source file.

    Attributes:
        imports: Of each import the level (0: absolute), the module, and the names taken from it.
        texts: All strings in it.
        digest: Of what it does.
    """

    imports: tuple[tuple[int, str, tuple[str, ...]], ...]
    texts: frozenset[str]
    digest: str


@functools.cache
def code_digest(package: Path = PACKAGE) -> str:
    """Return 12 hex digits of the current code that determines weights."""
    digests = [f'{name} {source.digest}\n' for name, source in counted_code(package).items()]
    return hashlib.sha256(''.join(digests).encode()).hexdigest()[:12]


def counted_code(package: Path = PACKAGE) -> dict[str, Source]:
    """The source files that determine weights: what `ROOT` imports, at once or late.

    Args:
        package: The folder of the package.

    Returns:
        By their paths below it, in order.
    """
    found: dict[str, Source] = {}
    seen, left = set(), [ROOT]
    while left:
        module = left.pop()
        if module in seen or _shows(module):
            continue
        seen.add(module)
        path = _file(package, module)
        if path is not None:
            source = read_source(path.read_text(encoding='utf-8'))
            found[path.relative_to(package).as_posix()] = source
            is_package = path.name == '__init__.py'
            left += _imported(module, module if is_package else _above(module), source)
            if is_package and _imports_folder(source):
                left += [f'{module}.{file.stem}' for file in path.parent.glob('[!_]*.py')]
            left.append(_above(module))  # a module's packages are imported before it
    return dict(sorted(found.items()))


@functools.cache
def read_source(text: str) -> Source:
    """Read a source file."""
    imports: list[tuple[int, str, tuple[str, ...]]] = []
    texts = set()
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            imports.append((node.level, node.module or '', names))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.add(node.value)
    digest = hashlib.sha256(repr(_plain(tree)).encode()).hexdigest()
    return Source(tuple(imports), frozenset(texts), digest)


def _shows(module: str) -> bool:
    return any(f'{module}.'.startswith(f'{name}.') for name in SHOWS)


def _above(module: str) -> str:
    return module.rpartition('.')[0]


def _file(package: Path, module: str) -> Path | None:
    """Return the file of a module, named relative to the package; None if there is none."""
    path = package.joinpath(*module.split('.'))
    files = [path / '__init__.py', *([path.with_name(f'{path.name}.py')] if module else [])]
    return next((file for file in files if file.is_file()), None)


def _imported(module: str, package: str, source: Source) -> Iterator[str]:
    """What a module imports of ours, named from our package on; names in modules are among it."""
    for level, stem, names in source.imports:
        if level:
            above = package.split('.') if package else []
            stem = '.'.join(filter(None, [*above[: len(above) - level + 1], stem]))
        elif stem == NAME or stem.startswith(f'{NAME}.'):
            stem = stem[len(NAME) + 1 :]
        else:
            continue
        yield stem
        yield from (f'{stem}.{name}'.lstrip('.') for name in names)
    if module == REGISTRY:
        yield from (text for text in source.texts if text.replace('.', '_').isidentifier())


def _imports_folder(source: Source) -> bool:
    """Whether a package imports all its modules, by `discovery.import_modules`."""
    return any('import_modules' in names for _, _, names in source.imports)


def _plain(node: Any) -> Any:
    """Convert a syntax tree to nested tuples, equal under every Python, without docstrings."""
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
