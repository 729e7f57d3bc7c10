"""Fingerprints of mmseg's own configs: ``python tests/fences/fingerprints.py [--write]``.

Compares all of them with `fingerprints.json`, which takes some minutes; the sweep's test compares
a sample. Each key of a fingerprint is part of a group, so a change names its group.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

import mmseg
from courses import stack
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mm_tuning_plugin.cli.sweep import find_configs
from mm_tuning_plugin.engine import derive_tuning_config
from mm_tuning_plugin.engine.config.options import resolve_options
from mm_tuning_plugin.engine.reuse.fingerprint import fingerprint
from mm_tuning_plugin.errors import UserError

FILE = Path(__file__).parent / 'fingerprints.json'
OWN = Path(mmseg.__path__[0], '.mim', 'configs')
GROUPS = ('mix_and_match', 'backbone', 'normalisation', 'dataset', 'optim_wrapper')


def short(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:6]


def fingerprint_of(cfg: Config) -> dict[str, str]:
    """Short hashes of the parts of a fingerprint; the data and the start are left out."""
    derived = derive_tuning_config(cfg)
    derived.model.checkpoint = None
    options = resolve_options(cfg.get('mix_and_match'))
    found = fingerprint(derived, options, 'data')
    parts = {name: {} for name in (*GROUPS, 'rest')}
    for key, value in found.items():
        head = key.partition('.')[0]
        parts[head if head in GROUPS else 'rest'][key] = value
    return {name: short(part) for name, part in parts.items()}


def all_fingerprints(paths) -> dict[str, dict[str, str]]:
    """By the path of the config below mmseg's own, without those that cannot be tuned."""
    found = {}
    for path in paths:
        with DefaultScope.overwrite_default_scope('mmseg'):
            try:
                parts = fingerprint_of(Config.fromfile(path))
            except (UserError, ImportError):
                continue
        found[path.relative_to(OWN).as_posix()] = parts
    return found


def packed(found) -> list:
    """What many configs share is written once: [[values, ...], {config: indices}]."""
    values = sorted({value for parts in found.values() for value in parts.values()})
    place = {value: index for index, value in enumerate(values)}
    return [values, {k: [place[v] for v in parts.values()] for k, parts in found.items()}]


def unpacked(values, indices) -> dict[str, dict[str, str]]:
    names = (*GROUPS, 'rest')
    return {k: dict(zip(names, (values[i] for i in each))) for k, each in indices.items()}


def known() -> dict[str, dict[str, str]]:
    """What the file says of this stack."""
    return unpacked(*json.loads(FILE.read_text())[stack()])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--write', action='store_true')
    found = all_fingerprints(find_configs(OWN))
    if parser.parse_args().write:
        record = json.loads(FILE.read_text()) if FILE.exists() else {}
        record[stack()] = packed(found)
        FILE.write_text(json.dumps(record, separators=(',', ':')).replace('],"', '],\n"') + '\n')
        return 0
    expected = known()
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            print(f'{name}: {expected.get(name)} before, {found.get(name)} now')
    return int(expected != found)


if __name__ == '__main__':
    sys.exit(main())
