"""Read and check the plan of a benchmark.

To add a proxy task to a plan, add a start with ``proxy``: the path of a config (configs/proxy/).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mm_tuning_plugin.benchmark.design.arms import RECIPES, parse_arm, with_ce_tuned
from mm_tuning_plugin.benchmark.design.splits import read_folds
from mm_tuning_plugin.engine.config.options import resolve_options
from mm_tuning_plugin.errors import UserError

START_KEYS = ('checkpoint', 'checkpoint_prefix', 'allow_pickle', 'min_matched')
PROXY_KEYS = ('proxy', 'cfg_options', 'seed', 'min_matched')
RECALL = dict(images=48, patches=12, size_range=(0.2, 0.6), patch_size=96)


@dataclass(frozen=True)
class Plan:
    """What a benchmark compares. Every path is absolute.

    Attributes:
        configs: Name of a backbone -> config of its fine-tuning.
        starts: Name of a start -> one of: None (random initialisation by the config); a dict with
            ``checkpoint`` and optionally ``checkpoint_prefix``, ``allow_pickle``, ``min_matched``;
            a dict with ``proxy``, the config of a proxy task, and optionally its ``cfg_options``
            and ``seed``. ``checkpoint`` and ``proxy`` may be dicts from backbone to file; backbones
            that are missing there do not use this start.
        arms: See `arms`.
        recipes: Name of a recipe -> options of ``mix_and_match``, which override the config's.
        folds: ``file`` and ``indices``; None: the config's own training and validation images.
        fractions: Shares of the training labels.
        seeds: Each determines the subsets, the order of data, the head and the nodes.
        cfg_options: Overrides of every config of fine-tuning.
        recall: The protocol of retrieval: see `worker.retrieval`.
        block_size: Number of validation images in a block of the bootstrap.
        bar: The required gain, in points of mIoU.
        cache_images: Whether training images are decoded once and kept in memory.
        keep_checkpoints: Whether the final weights of fine-tuning are kept.
    """

    configs: dict[str, str]
    arms: list[str]
    seeds: list[int]
    starts: dict[str, Any] = field(default_factory=lambda: {'random': None})
    recipes: dict[str, dict[str, Any]] = field(default_factory=lambda: with_ce_tuned(RECIPES))
    folds: dict[str, Any] | None = None
    fractions: list[float] = field(default_factory=lambda: [1.0])
    cfg_options: dict[str, Any] = field(default_factory=dict)
    recall: dict[str, Any] = field(default_factory=lambda: dict(RECALL))
    block_size: int = 20
    bar: float = 0
    cache_images: bool = True
    keep_checkpoints: bool = False

    def restricted(self, **chosen: Sequence[Any] | None) -> Plan:
        """A copy with other arms, seeds or fractions; None keeps those of the plan.

        Raises:
            UserError: An arm does not exist, or a value is wrong.
        """
        given = {name: list(values) for name, values in chosen.items() if values is not None}
        return check_plan({**vars(self), **given})

    def as_json(self) -> dict[str, Any]:
        """The plan as plain values, for JSON."""
        return asdict(self)


def read_plan(path: str, starts: Sequence[str] | None = None) -> Plan:
    """Read a plan, in Python or YAML.

    Args:
        path: The file.
        starts: Names of the starts to use; the files of other starts may be missing. None: all.

    Raises:
        UserError: The file cannot be read, a start does not exist, or an entry is wrong.
    """
    try:
        content = dict(Config.fromfile(path).to_dict())
    except Exception as error:  # a plan is code: it can raise anything
        reason = f'{type(error).__name__}: {error}'.splitlines()[0]
        raise UserError(
            path, f'cannot be read ({reason})', 'expected a plan in Python or YAML'
        ) from error
    try:
        if 'config' in content:
            content['configs'] = _single(content)
        if starts is not None:
            content['starts'] = _chosen(content.get('starts', {'random': None}), starts)
        return check_plan(content, Path(path).resolve().parent)
    except UserError as error:
        raise UserError(path, f'{error.where}: {error.problem}', error.remedy) from error


def check_plan(content: Mapping[str, Any], folder: Path = Path('/')) -> Plan:
    """Validate the content of a plan.

    Args:
        content: Name of an attribute of `Plan` -> value.
        folder: Relative paths start here.

    Raises:
        UserError: An entry is unknown, missing or wrong.
    """
    content = dict(content)
    names = [item.name for item in fields(Plan)]
    for name in content:
        if name not in names:
            near = difflib.get_close_matches(str(name), [*names, 'config'], n=1, cutoff=0.0)[0]
            raise UserError(name, 'no such entry of a plan', f'use {near}, the nearest known one')
    for name in ('configs', 'arms', 'seeds'):
        if name not in content:
            raise UserError(name, 'none found', 'expected them in a plan')
    for name, (check, expected) in CHECKS.items():
        if name in content:
            _expect(name, content[name], check, expected)
    content['configs'] = {
        name: _file('configs.' + name, path, folder) for name, path in content['configs'].items()
    }
    if 'starts' in content:
        content['starts'] = {
            str(name): _start(f'starts.{name}', start, content['configs'], folder)
            for name, start in content['starts'].items()
        }
    content['recipes'] = _recipes(content.get('recipes', RECIPES))
    for arm in content['arms']:
        parse_arm(arm, content['recipes'])
    content['folds'] = _folds(content.get('folds'), folder)
    content['recall'] = _recall(content.get('recall', {}))
    content['fractions'] = [float(share) for share in content.get('fractions', [1])]
    for name in ('arms', 'seeds', 'fractions'):
        if len(set(content[name])) < len(content[name]):
            raise UserError(name, f'{content[name]} found', 'expected each once')
    return Plan(**content)


def _single(content: dict[str, Any]) -> dict[str, Any]:
    """Replace the entry ``config`` by a ``configs`` of one backbone, which is returned."""
    if 'configs' in content:
        raise UserError('config', 'found beside configs', 'expected one of them')
    path = content.pop('config')
    _expect('config', path, _is_name, 'the path of a config')
    return {Path(path).stem: path}


def _chosen(starts: Any, names: Sequence[str]) -> dict[str, Any]:
    """The starts of a plan that the user chose."""
    check, expected = CHECKS['starts']
    _expect('starts', starts, check, expected)
    named = {str(name): start for name, start in starts.items()}
    _expect_names('--starts', names, named)
    return {name: named[name] for name in names}


def _recipes(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    for name, options in given.items():
        _expect(f'recipes.{name}', options, lambda v: isinstance(v, Mapping), 'a dict of options')
        try:
            resolve_options(options)
        except UserError as error:
            raise UserError(
                f'recipes.{name}', f'{error.where}: {error.problem}', error.remedy
            ) from error
        if str(name).startswith('direct'):
            raise UserError('recipes', f'{name!r} found', 'expected no name of a baseline')
    return with_ce_tuned(given)


def _start(where: str, start: Any, backbones: Mapping[str, str], folder: Path) -> Any:
    """Resolve a start: None, or a dict with ``checkpoint`` or ``proxy`` for each backbone."""
    if start is None:
        return None
    if isinstance(start, str):
        start = {'checkpoint': start}
    kind = 'proxy' if isinstance(start, Mapping) and 'proxy' in start else 'checkpoint'
    keys = PROXY_KEYS if kind == 'proxy' else START_KEYS
    if not isinstance(start, Mapping) or kind not in start or set(start) - set(keys):
        raise UserError(
            where,
            f'{start!r} found',
            f'expected None, a file, checkpoint=FILE with some of {list(START_KEYS[1:])}, or '
            f'proxy=CONFIG with some of {list(PROXY_KEYS[1:])}',
        )
    if isinstance(start[kind], Mapping):
        _expect_names(where, start[kind], backbones)
        by_backbone = start[kind]
    else:
        by_backbone = dict.fromkeys(backbones, start[kind])
    _expect(f'{where}.seed', start.get('seed', 0), _is_integer, 'an integer')
    _expect(
        f'{where}.cfg_options', start.get('cfg_options', {}), _is_mapping, 'a dict of dotted names'
    )
    files = {name: _file(f'{where}.{kind}', file, folder) for name, file in by_backbone.items()}
    return {**start, kind: files}


def _folds(folds: Any, folder: Path) -> dict[str, Any] | None:
    if folds is None:
        return None
    if not isinstance(folds, Mapping) or 'file' not in folds or set(folds) - {'file', 'indices'}:
        raise UserError('folds', f'{folds!r} found', 'expected a `file` and, if not all, `indices`')
    path = _file('folds.file', folds['file'], folder)
    count = len(read_folds(Path(path)))
    indices = folds.get('indices', list(range(count)))
    in_range = _is_list_of(lambda v: _is_integer(v) and 0 <= v < count)
    _expect('folds.indices', indices, in_range, f'some of 0 to {count - 1}, the folds of {path}')
    return dict(file=path, indices=list(indices))


def _recall(given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping) or set(given) - set(RECALL):
        raise UserError(
            'recall', f'{given!r} found', f'expected a dict with some of {list(RECALL)}'
        )
    resolved = {**RECALL, **given}
    check = lambda v: _is_integer(v) and v >= 0  # noqa: E731
    _expect('recall.images', resolved['images'], check, 'an integer from 0 (0: do not measure)')
    _expect('recall.patches', resolved['patches'], check, 'an integer from 1')
    try:
        resolve_options(
            {
                'nodes_per_image': resolved['patches'],
                'size_range': resolved['size_range'],
                'patch_size': resolved['patch_size'],
            }
        )
    except UserError as error:
        raise UserError('recall', f'{error.where}: {error.problem}', error.remedy) from error
    return resolved


def _file(where: str, path: Any, folder: Path) -> str:
    """An absolute path. A relative path is looked up in `folder`, then in the working folder."""
    _expect(where, path, _is_name, 'the path of a file')
    for candidate in (folder / path, Path(path).absolute()):
        if candidate.is_file():
            return str(candidate.resolve())
    raise UserError(where, f'{path} found', f'expected an existing file, seen from {folder}')


def _expect(where: str, value: Any, check: Callable[[Any], bool], expected: str) -> None:
    if not check(value):
        raise UserError(where, f'{value!r} found', f'expected {expected}')


def _expect_names(where: str, found: Any, known: Mapping[str, Any]) -> None:
    unknown = [name for name in found if name not in known]
    if unknown or not found:
        raise UserError(where, f'{list(found)} found', f'expected some of {list(known)}')


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_list_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, (list, tuple)) and bool(v) and all(check(item) for item in v)


CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    'configs': (lambda v: _is_mapping(v) and bool(v), 'a dict of names and paths of configs'),
    'starts': (lambda v: _is_mapping(v) and bool(v), 'a dict of names and starts'),
    'arms': (_is_list_of(_is_name), 'a list of names'),
    'recipes': (_is_mapping, 'a dict of names and options of mix_and_match'),
    'fractions': (_is_list_of(_is_share), 'a list of numbers above 0, up to 1'),
    'seeds': (_is_list_of(lambda v: _is_integer(v) and v >= 0), 'a list of integers from 0'),
    'cfg_options': (_is_mapping, 'a dict of dotted names'),
    'block_size': (lambda v: _is_integer(v) and v >= 1, 'an integer from 1'),
    'bar': (lambda v: isinstance(v, (int, float)) and not isinstance(v, bool), 'a number'),
    'cache_images': (lambda v: isinstance(v, bool), 'True or False'),
    'keep_checkpoints': (lambda v: isinstance(v, bool), 'True or False'),
}
