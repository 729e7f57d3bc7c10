"""The fingerprint of what determines tuned weights: an equal one lets a tuning be used again."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence

from mmengine.config import Config

from mm_tuning_plugin.checkpoint import hash_file
from mm_tuning_plugin.config_types import (
    ConfigMap,
    PlainConfig,
    full_type,
    plain_name,
    with_plain_types,
)
from mm_tuning_plugin.datasets.cached import without_cache
from mm_tuning_plugin.engine.config.options import Options, counted_options, known_options

# Arguments added to a type after fingerprints already contained it, with the values that equal the
# earlier behaviour.
ADDED_ARGUMENTS: dict[str, PlainConfig] = {
    'mm_tuning_plugin.SamplePoints': {'border_share': 0.0},
}
# Places of data and ways to read them: the manifest identifies the data. The last two only select
# the checks of labels.
PATH_KEYS = (
    'data_root', 'data_prefix', 'ann_file', 'backend_args', 'lazy_init', 'serialize_data',
    'label_loader', 'filled',
)  # fmt: skip


def fingerprint(tuning_cfg: Config, options: Options, manifest: str) -> PlainConfig:
    """Collect what determines the tuned weights.

    Args:
        tuning_cfg: The derived config of stage one.
        options: The resolved options.
        manifest: `data_manifest` of the training data.

    Returns:
        Flat, JSON-able: dotted names to plain values.
    """
    model = tuning_cfg['model']
    start = model['checkpoint']
    parts = dict(
        mix_and_match=counted_options(options),
        backbone=model['backbone'],
        in_index=model['in_index'],
        normalisation=model['data_preprocessor'],
        start=_start(start, options.checkpoint_prefix),
        data=manifest,
        dataset=_without_paths(without_cache(tuning_cfg['train_dataloader']['dataset'])),
        optim_wrapper=tuning_cfg['optim_wrapper'],
        seed=(tuning_cfg.get('randomness') or {}).get('seed'),
    )
    if tuning_cfg.get('sync_bn') is not None:
        parts['sync_bn'] = tuning_cfg['sync_bn']
    for hook in tuning_cfg['custom_hooks']:
        if full_type(hook) == 'mm_tuning_plugin.EstimateBatchNormHook':
            counted = {key: hook[key] for key in ('num_crops', 'batch_size', 'dataset', 'size')}
            parts['batch_norm'] = _without_paths(without_cache(counted))
    named = with_plain_types(parts, tuning_cfg.get('default_scope') or 'mmseg')
    return _flatten(json.loads(json.dumps(named, default=str)))


def _start(path: str | None, prefix: str | None) -> str:
    if path is None:
        return 'as the config initialises'
    return hash_file(path) + (f', under {prefix}' if prefix else '')


def data_manifest(items: Sequence[ConfigMap]) -> str:
    """Hash the names of images and label maps, and the sizes of the files that labels are in.

    Names on the local disk count below their common folder, so that data may be moved. Elsewhere
    sizes are not asked for: the whole names count, with the arguments of the storage.

    Args:
        items: Per sample, ``img_path`` and, unless labels lie in the image's file,
            ``seg_map_path``; ``storage``, where that is not the local disk.

    Returns:
        'N images, HASH'.
    """
    digest = hashlib.sha256()
    local = [item for item in items if 'storage' not in item]
    keys = ('img_path', 'seg_map_path')
    roots = {key: _common([str(i[key]) for i in local if i.get(key)]) for key in keys}
    for item in items:
        paths = {key: str(item[key]) for key in keys if item.get(key)}
        if 'storage' in item or not paths:
            plain = {k: v for k, v in item.items() if isinstance(v, (str, int))}
            line = json.dumps(plain, sort_keys=True)
        else:
            labelled = paths.get('seg_map_path', paths.get('img_path', ''))
            size = os.path.getsize(labelled) if os.path.isfile(labelled) else -1
            names = {key: os.path.relpath(path, roots[key]) for key, path in paths.items()}
            line = f'{names.get("img_path", "")}|{names.get("seg_map_path", "")}|{size}'
        digest.update(f'{line}\n'.encode())
    return f'{len(items)} images, {digest.hexdigest()[:16]}'


def differences(
    before: ConfigMap,
    now: ConfigMap,
    most: int = 3,
    kind: type[Options] = Options,
) -> str:
    """Return one line on what differs; empty if nothing does.

    Args:
        before: A fingerprint, maybe of an earlier version.
        now: Another.
        most: How many differences are named.
        kind: What declares the options.
    """
    before, now = _as_of_now(before, kind), _as_of_now(now, kind)
    keys = [k for k in sorted({*before, *now}) if before.get(k) != now.get(k)]
    changes = [f'{k} was {before.get(k)!r} and is now {now.get(k)!r}' for k in keys[:most]]
    more = [f'and {len(keys) - most} more'] if len(keys) > most else []
    return '; '.join(changes + more)


def _as_of_now(found: ConfigMap, kind: type[Options]) -> PlainConfig:
    """A fingerprint as the present version would have written it."""
    given = {key: _argument_as_of_now(key, value) for key, value in found.items()}
    for option in known_options(kind):
        key = f'mix_and_match.{option.name}'
        if option.changes_weights:
            # an option that is a dict has one key for each of its parts
            if not any(_is_part(name, key) for name in given):
                given[key] = option.introduced
        elif key in given and given[key] == option.once_counted_unless:
            del given[key]
    return given


def _is_part(key: str, whole: str) -> bool:
    return key == whole or key.startswith(f'{whole}.')


def _argument_as_of_now(key: str, value: object) -> object:
    if isinstance(value, Mapping):
        known = {k: _argument_as_of_now(str(k), v) for k, v in value.items()}
        return {**ADDED_ARGUMENTS.get(str(known.get('type')), {}), **known}
    if isinstance(value, (list, tuple)):
        return [_argument_as_of_now('', item) for item in value]
    if not isinstance(value, str):
        return value
    # how classes were written once; with the path of a class everybody may have named one
    path = re.fullmatch(r"<class '([\w.]+)'>", value)
    is_type = key.rsplit('.', 1)[-1] in ('type', 'constructor')
    return plain_name(path[1] if path else value) if path or is_type else value


def _without_paths(config: object) -> object:
    if isinstance(config, Mapping):
        return {k: _without_paths(v) for k, v in config.items() if k not in PATH_KEYS}
    if isinstance(config, (list, tuple)):
        return [_without_paths(value) for value in config]
    return config


def _flatten(config: object, prefix: str = '') -> PlainConfig:
    if isinstance(config, dict) and config:
        flat: PlainConfig = {}
        for key, value in config.items():
            flat.update(_flatten(value, f'{prefix}.{key}' if prefix else str(key)))
        return flat
    return {prefix: config}


def _common(paths: Sequence[str]) -> str:
    folders = {os.path.dirname(os.path.abspath(path)) for path in paths}
    return os.path.commonpath(folders) if folders else os.curdir
