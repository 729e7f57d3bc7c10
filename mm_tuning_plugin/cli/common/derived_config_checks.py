"""Checks of a derived config: it is complete, can be written and read, and can be built.

Each check returns a description of what is wrong, or ''.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mm_tuning_plugin.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.registry import Registry

BELONGS_TO_THE_RUN = ('runner_type', 'mix_and_match')


def check_plain(derived: Config) -> str:
    """It has no keys of the tuning run, and reads back equal after it is written.

    It is written as plain assignments, as ``Config.dump`` takes a second to format the file.
    """
    from mmengine.config import Config

    left = [key for key in BELONGS_TO_THE_RUN if key in derived]
    if left:
        return f'{left[0]} is left in the derived config'
    values = derived.to_dict()
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, 'derived.py')
        with open(file, 'w', encoding='utf-8') as opened:
            opened.writelines(f'{key} = {value!r}\n' for key, value in values.items())
        try:
            same = Config.fromfile(file).to_dict() == values
        except Exception as error:  # a config is code: it can raise anything
            return f'the derived config cannot be read back: {type(error).__name__}: {error}'
    return '' if same else 'the derived config reads back as another'


def check_start(cfg: Config) -> str:
    """With initial weights given, neither stage loads other weights.

    Raises:
        UserError: The config cannot be tuned with initial weights.
    """
    from mm_tuning_plugin.engine import derive_tuning_config
    from mm_tuning_plugin.engine.config.initial_weights import remove_pretrained

    given = copy.deepcopy(cfg)
    with tempfile.NamedTemporaryFile(suffix='.pth') as start:
        given.mix_and_match = dict(checkpoint=start.name, recipe='paper', bn_crops=2)
        tuning = derive_tuning_config(given).to_dict()
    for stage, model in (('tuning', tuning['model']), ('fine-tuning', cfg.to_dict()['model'])):
        model = model if stage == 'tuning' else remove_pretrained(model)
        for place in loading_places(model):
            return f'model.{place} loads weights in {stage} though a start is given'
    return ''


def loading_places(config: Any, place: str = '') -> Iterator[str]:
    """Dotted names of all entries that load weights: ``pretrained`` and ``init_cfg``."""
    from mm_tuning_plugin.config_types import base_type

    if isinstance(config, Mapping):
        kind = base_type(config)
        if kind in ('Pretrained', 'PretrainedInit', 'SelfSupervised'):
            yield place
        if config.get('pretrained') or (kind == 'TIMMBackbone' and 'pretrained' not in config):
            yield f'{place}.pretrained'.lstrip('.')
        for key, value in config.items():
            yield from loading_places(value, f'{place}.{key}'.lstrip('.'))
    elif isinstance(config, (list, tuple)):
        for i, value in enumerate(config):
            yield from loading_places(value, f'{place}.{i}')


def check_types(derived: Config) -> str:
    """All types that tuning builds are registered: data, transforms, model, hooks, loop."""
    from mmengine import registry as roots

    from mm_tuning_plugin.engine.preflight.fine_tuning.registered import find

    config = derived.to_dict()
    model = config['model']
    hooks = [*config['custom_hooks'], *config['default_hooks'].values()]
    wanted: list[tuple[Registry, Any]] = [(roots.HOOKS, hook) for hook in hooks]
    wanted.append((roots.MODELS, model))
    parts = ('data_preprocessor', 'backbone', 'embedding', 'criterion')
    wanted += [(roots.MODELS, model[part]) for part in parts]
    for loader in (config['train_dataloader'], config['val_dataloader'] or {}):
        wanted += _of_datasets(loader.get('dataset'))
    wanted += _of_loops(config)
    with roots.DefaultScope.overwrite_default_scope(config['default_scope']):
        for root, part in wanted:
            try:
                find('the derived config', root, part)
            except UserError as error:
                return str(error)
    return ''


def _of_loops(config: Mapping[str, Any]) -> list[tuple[Registry, Any]]:
    """Loops, optimizer and its schedule, sampler and metric, with their registries."""
    from mmengine import registry as roots

    schedules = config.get('param_scheduler') or ()
    found: list[tuple[Registry, Any]] = [
        (roots.LOOPS, config.get('train_cfg')),
        (roots.LOOPS, config.get('val_cfg')),
        (roots.OPTIM_WRAPPERS, config.get('optim_wrapper')),
        (roots.OPTIMIZERS, (config.get('optim_wrapper') or {}).get('optimizer')),
        (roots.DATA_SAMPLERS, config['train_dataloader'].get('sampler')),
        (roots.METRICS, config.get('val_evaluator')),
        *((roots.PARAM_SCHEDULERS, schedule) for schedule in schedules),
    ]
    return [(root, part) for root, part in found if isinstance(part, Mapping) and 'type' in part]


def _of_datasets(config: Any) -> list[tuple[Registry, Any]]:
    """Nested data sets and their transforms, with the registries that should contain them."""
    from mmengine.registry import DATASETS, TRANSFORMS

    if isinstance(config, (list, tuple)):
        return [found for part in config for found in _of_datasets(part)]
    if not isinstance(config, Mapping) or 'type' not in config:
        return []
    found = [(DATASETS, config)]
    found += [(TRANSFORMS, step) for step in config.get('pipeline') or ()]
    for key in ('dataset', 'datasets', 'gallery', 'queries'):
        found += _of_datasets(config.get(key))
    return found


def check_built(derived: Config) -> str:
    """The backbone, without weights, and its optimizer can be built."""
    from mm_tuning_plugin.config_types import base_type
    from mm_tuning_plugin.engine.config.learning_rates import optimizer_over

    scope, wrapper = derived['default_scope'], copy.deepcopy(derived['optim_wrapper'])
    if base_type(wrapper) == 'AmpOptimWrapper':  # needs an accelerator to be built
        wrapper = dict(optimizer=wrapper['optimizer'], **_constructor_options(wrapper))
    try:
        built, tuner = optimizer_over(derived['model']['backbone'], wrapper, scope)
    except Exception as error:  # constructors can raise anything
        return f'cannot be built: {type(error).__name__}: {error}'
    covered = sum(len(group['params']) for group in built.param_groups)
    trained = sum(parameter.requires_grad for parameter in tuner.parameters())
    if covered < trained:
        return f'the optimizer has {covered} of {trained} parameters that train'
    return ''


def _constructor_options(wrapper: Mapping[str, Any]) -> dict[str, Any]:
    return {key: wrapper[key] for key in ('constructor', 'paramwise_cfg') if key in wrapper}
