"""The user's config, read once into a typed record.

`read_user_config` reports every mistake in the config and its options. The config of stage one is
derived from the record alone (``derive_*.py``).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_world_size

from mm_tuning_plugin.config_types import ConfigMap, PlainConfig, base_type, with_named_types
from mm_tuning_plugin.engine.config.dataset_tree import dataset_classes, leaf_datasets
from mm_tuning_plugin.engine.config.decode_head import (
    head_key,
    num_label_values,
    read_head,
    read_levels,
)
from mm_tuning_plugin.engine.config.derive_pipelines import validates_labels
from mm_tuning_plugin.engine.config.entry_types import (
    INTEGER,
    check_entry_types,
    require,
    shown,
    steps_of,
)
from mm_tuning_plugin.engine.config.initial_weights import adopt_self_supervised, split_start
from mm_tuning_plugin.engine.config.normalisation import (
    Normalisation,
    read_normalisation,
    read_size,
)
from mm_tuning_plugin.engine.config.options import PICTURES_OF_RETRIEVAL, Options, resolve_options
from mm_tuning_plugin.errors import UserError

REFUSED_MODELS = {
    'MultimodalEncoderDecoder': 'it has no backbone of its own (SAN)',
    'DepthEstimator': 'it estimates depth and has no classes',
    'SiamEncoderDecoder': 'it detects change between two images',
}
# Transforms of change detection, where a sample is two images.
PAIRING_TRANSFORMS = ('LoadMultipleRSImageFromFile', 'ConcatCDInput')
REFUSED_BACKBONES = {
    'VPD': "it is the network of a text-to-image model, built from that model's weights and from "
    'embeddings of prompts, and no self-supervised backbone',
}
# They accept only images of their own img_size. BEiT and MAE are mmseg's, the rest mmpretrain's.
FIXED_SIZE_BACKBONES = ('BEiT', 'MAE', 'BEiTViT', 'LeViT', 'RepMLPNet')


# Copied from the user's config without changes.
KEPT_KEYS = (
    'default_scope', 'custom_imports', 'env_cfg', 'launcher', 'log_level', 'randomness',
    'model_wrapper_cfg', 'find_unused_parameters', 'sync_bn',
)  # fmt: skip


@dataclass(frozen=True)
class UserConfig:
    """The parts of a user's config that stage one needs.

    Attributes:
        options: The resolved options.
        num_classes: Number of label values that are classes.
        class_names: Their names.
        ignore_values: Label values that are ignored.
        background_index: The background class, or None.
        normalisation: Mean, std and channel order of images.
        levels: Outputs of the backbone that are tuned; None: all.
        backbone: Its config, without initial weights that this package loads.
        checkpoint: File of the initial weights that this package loads, or None.
        image_size: (H, W) of the only images that the backbone accepts, or None.
        batch_size: (H, W) that mmseg pads training images to, or None.
        train_dataset: Config of the training data.
        train_loader: Config of its loader.
        val_dataset: Config of the validation data if node retrieval is measured, or None.
        val_loader: Config of its loader.
        optim_wrapper: Config of the optimizer of fine-tuning.
        seed: Seed of the run, or None.
        scope: ``default_scope``.
        work_dir: The user's, or None.
        log_interval: Iterations between lines of the log.
        visualizer: Config of the visualizer.
        kept_hooks: Custom hooks that also run in stage one.
        pictures: Kinds of pictures to draw.
        kept: Entries that stage one copies without changes.
        world_size: Number of ranks.
    """

    options: Options
    num_classes: int
    class_names: list[str]
    ignore_values: list[int]
    background_index: int | None
    normalisation: Normalisation
    levels: list[int] | None
    backbone: PlainConfig
    checkpoint: str | None
    image_size: list[int] | None
    batch_size: list[int] | None
    train_dataset: ConfigMap
    train_loader: ConfigMap
    val_dataset: ConfigMap | None
    val_loader: ConfigMap
    optim_wrapper: PlainConfig
    seed: int | None
    scope: str
    work_dir: str | None
    log_interval: int
    visualizer: PlainConfig
    kept_hooks: list[PlainConfig]
    pictures: list[str]
    kept: PlainConfig
    world_size: int

    def share(self, number: int) -> int:
        """Return one rank's share of a number that counts over all ranks."""
        return number // self.world_size


def read_user_config(cfg: Config) -> UserConfig:
    """Validate a user's config and read the parts that stage one needs.

    Args:
        cfg: The config of an mmseg project, with an optional ``mix_and_match``; not changed.

    Raises:
        UserError: The config cannot be tuned, or an option is wrong.
    """
    cfg = adopt_self_supervised(with_named_types(cfg))
    options = resolve_options(cfg.get('mix_and_match'))
    check_entry_types(cfg)
    if cfg.get('load_from'):
        raise UserError(
            'load_from',
            f'{cfg["load_from"]!r} found, which would overwrite the tuned backbone',
            'remove it, and give the weights as mix_and_match.checkpoint (--ssl-checkpoint)',
        )
    model, loader = read_model(cfg), _read_loader(cfg)
    _check_workers(cfg)
    num_classes, class_names = read_classes(cfg)
    normalisation = read_normalisation(cfg)
    backbone, checkpoint = split_start(model, options.checkpoint)
    val_loader = _read_val_loader(cfg, options)
    image_size = read_fixed_size(backbone)
    hooks = cfg.get('default_hooks') or {}
    size = None if image_size else read_size(cfg)
    _check_options(options, backbone)
    return UserConfig(
        options=options,
        num_classes=num_classes,
        class_names=class_names,
        ignore_values=read_ignored(cfg, normalisation.seg_pad_val),
        background_index=read_background(options.background_index, class_names),
        normalisation=normalisation,
        levels=_read_tuned_levels(model, options.levels),
        backbone=backbone,
        checkpoint=checkpoint,
        image_size=image_size,
        batch_size=list(size) if isinstance(size, (list, tuple)) else None,
        train_dataset=loader['dataset'],
        train_loader=loader,
        val_dataset=val_loader['dataset'] if val_loader else None,
        val_loader=val_loader,
        optim_wrapper=_read_optim_wrapper(cfg),
        seed=_read_seed(cfg),
        scope=cfg.get('default_scope') or 'mmseg',
        work_dir=cfg.get('work_dir'),
        log_interval=(hooks.get('logger') or {}).get('interval') or 50,
        visualizer=copy.deepcopy(dict(cfg.get('visualizer') or dict(type='Visualizer'))),
        kept_hooks=[
            copy.deepcopy(hook)
            for hook in cfg.get('custom_hooks') or []
            if base_type(hook) in options.keep_hooks
        ],
        pictures=_read_pictures(cfg, options, measured=bool(val_loader)),
        kept={key: copy.deepcopy(cfg[key]) for key in KEPT_KEYS if cfg.get(key) is not None},
        world_size=get_world_size(),
    )


def read_model(cfg: ConfigMap) -> ConfigMap:
    """Return the model's config if stage one can tune it.

    Raises:
        UserError: No model, no backbone, or a task without pixel classes.
    """
    model = cfg.get('model')
    if not isinstance(model, Mapping):
        raise UserError('model', f'{shown(model)} found', 'expected the config of a segmentor')
    kind = base_type(model)
    if kind in REFUSED_MODELS:
        raise UserError(
            'model',
            f'{kind} cannot be tuned: {REFUSED_MODELS[kind]}',
            'expected a segmentor with a backbone and pixel classes',
        )
    if not isinstance(model.get('backbone'), Mapping):
        raise UserError('model', f'{kind} has no backbone', 'expected a segmentor with one')
    backbone = base_type(model['backbone'])
    if backbone in REFUSED_BACKBONES:
        raise UserError(
            'model.backbone',
            f'{backbone} cannot be tuned: {REFUSED_BACKBONES[backbone]}',
            'expected a backbone with self-supervised weights',
        )
    return model


def _read_loader(cfg: ConfigMap) -> ConfigMap:
    loader = cfg.get('train_dataloader')
    if not isinstance(loader, Mapping):
        raise UserError('train_dataloader', 'none found', 'expected the data to tune and train on')
    dataset: Any = loader.get('dataset')
    refuse_pairs(dataset)
    _check_pipelines(dataset)
    return loader


def _read_val_loader(cfg: ConfigMap, options: Options) -> ConfigMap:
    """Return the loader of validation; empty if node retrieval is not measured."""
    loader = cfg.get('val_dataloader')
    if not isinstance(loader, Mapping) or not options.retrieval_images:
        return {}
    if not validates_labels(cfg):
        return {}
    _check_pipelines(loader['dataset'])
    return loader


def _check_pipelines(dataset: ConfigMap) -> None:
    for leaf in leaf_datasets(dataset):
        if not steps_of(leaf):
            raise UserError(
                'dataset.pipeline',
                f'none found in {base_type(leaf)}',
                'expected one that loads images and label maps',
            )


def _check_workers(cfg: ConfigMap) -> None:
    for name in ('train_dataloader', 'val_dataloader'):
        loader = cfg.get(name) or {}
        if loader.get('persistent_workers') and not loader.get('num_workers'):
            raise UserError(
                f'{name}.persistent_workers',
                'True found with num_workers=0',
                'expected at least one worker, or persistent_workers=False',
            )


def _check_options(options: Options, backbone: ConfigMap) -> None:
    """Check options against each other, the backbone and the number of ranks."""
    groups, images, ranks = options.graph_groups, options.images_per_batch, get_world_size()
    if images % groups:
        raise UserError(
            'mix_and_match.graph_groups',
            f'{groups} found',
            f'expected a divisor of images_per_batch ({images})',
        )
    for name in ('images_per_batch', 'bn_crops'):
        if getattr(options, name) % ranks:
            raise UserError(
                f'mix_and_match.{name}',
                f'{getattr(options, name)} found',
                f'expected a multiple of the {ranks} ranks',
            )
    # mmseg's with_cp is reentrant: inside chunks it marks a parameter as ready once per chunk, and
    # DDP refuses that. A single process may use both.
    if options.chunk_size and ranks > 1 and any_set(backbone, 'with_cp'):
        raise UserError(
            'mix_and_match.chunk_size',
            f'{options.chunk_size} found beside with_cp=True of the backbone over {ranks} ranks',
            'expected only one of the two, since both recompute activations',
        )


def _read_tuned_levels(model: ConfigMap, levels: str | Sequence[int]) -> list[int] | None:
    if levels == 'head':
        return read_levels(model)
    return None if levels == 'all' else [int(level) for level in levels]


def _read_optim_wrapper(cfg: ConfigMap) -> PlainConfig:
    wrapper = copy.deepcopy(dict(cfg.get('optim_wrapper') or {}))
    if not isinstance(wrapper.get('optimizer'), Mapping):
        raise UserError(
            'optim_wrapper', f'{wrapper or None!r} found', 'expected one with an optimizer'
        )
    return wrapper


def _read_seed(cfg: ConfigMap) -> int | None:
    seed = (cfg.get('randomness') or {}).get('seed')
    return None if seed is None else int(seed)


def _read_pictures(cfg: ConfigMap, options: Options, measured: bool) -> list[str]:
    """Return the pictures that can be drawn. Most need the nodes of node retrieval."""
    chosen = list(dict.fromkeys(options.pictures))
    lacking = [] if measured else [kind for kind in chosen if kind in PICTURES_OF_RETRIEVAL]
    if lacking and 'pictures' in (cfg.get('mix_and_match') or {}):
        raise UserError(
            'mix_and_match.pictures',
            f'{lacking[0]!r} needs node retrieval, which is not measured',
            'set retrieval_images above 0 and a val_dataloader, or remove the picture',
        )
    return [kind for kind in chosen if kind not in lacking]


def any_set(config: object, key: str) -> bool:
    """Whether `key` is true anywhere in nested configs."""
    if isinstance(config, Mapping):
        return bool(config.get(key)) or any(any_set(part, key) for part in config.values())
    return isinstance(config, (list, tuple)) and any(any_set(part, key) for part in config)


def read_fixed_size(backbone: ConfigMap) -> list[int] | None:
    """Return the (H, W) of the only images that a backbone accepts; None if it accepts any."""
    kind = base_type(backbone)
    if kind == 'TIMMBackbone':
        loose = backbone.get('dynamic_img_size') or not backbone.get('strict_img_size', True)
        if loose or backbone.get('img_size') is None:
            return None
    elif kind not in FIXED_SIZE_BACKBONES:
        return None
    side = backbone.get('img_size', 224)
    return [side, side] if isinstance(side, int) else list(side)


def refuse_pairs(dataset: ConfigMap) -> None:
    """Refuse data of change detection, where a sample is two images.

    Raises:
        UserError: A transform joins two images.
    """
    for leaf in leaf_datasets(dataset):
        for step in steps_of(leaf):
            if base_type(step) in PAIRING_TRANSFORMS:
                raise UserError(
                    'train_dataloader',
                    f'{base_type(step)} found, but change detection cannot be tuned',
                    'expected transforms of one image',
                )


def read_classes(cfg: ConfigMap) -> tuple[int, list[str]]:
    """Return the number of classes and their names.

    The number is the head's. If the head has none (Mask2Former), it is the number of names in the
    data set. A single output separates two classes: see `num_label_values`. A class without a name
    gets its number as name.

    Raises:
        UserError: Neither the head nor the data set gives the number.
    """
    names = dataset_classes(cfg['train_dataloader']['dataset'])
    head = read_head(cfg['model'])
    number = head_key(head, 'num_classes')
    if number is None and names is None:
        raise UserError(
            'num_classes',
            'found in neither the decode head nor the metainfo of the data set',
            'set model.decode_head.num_classes',
        )
    require('num_classes', number, INTEGER)
    number = num_label_values(head, len(names or ()) if number is None else number)
    if not 1 <= number <= 255:
        raise UserError(
            'num_classes',
            f'{number} classes found',
            'expected 1 to 255, because stage one keeps label maps in 8 bits and 255 means ignored',
        )
    names = list(names or [])[:number]
    return number, names + [f'class {i}' for i in range(len(names), number)]


def read_ignored(cfg: ConfigMap, seg_pad_val: int) -> list[int]:
    """Return the ignored label values: the head's, the padding's, and always 255.

    Raises:
        UserError: The head's is not an integer.
    """
    index = head_key(read_head(cfg['model']), 'ignore_index')
    if isinstance(index, float) and index.is_integer():
        index = int(index)  # equal to the same labels
    require('model.decode_head.ignore_index', index, INTEGER)
    return sorted({255, seg_pad_val, 255 if index is None else index})


def read_background(given: str | int | None, class_names: Sequence[str]) -> int | None:
    """Return the background class, as the option ``background_index`` describes, or None.

    Raises:
        UserError: There is no class with the given index.
    """
    if isinstance(given, str):  # 'auto'
        return 0 if class_names[0].lower() == 'background' else None
    if given is not None and given >= len(class_names):
        raise UserError(
            'mix_and_match.background_index',
            f'{given} found',
            f'expected less than {len(class_names)}, the number of classes',
        )
    return None if given is None else int(given)
