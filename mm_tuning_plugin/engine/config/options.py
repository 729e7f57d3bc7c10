"""Every option of ``mix_and_match``, each declared once: type, default, range, effect."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from mm_tuning_plugin.config_types import ConfigMap, PlainConfig, base_type
from mm_tuning_plugin.engine.config.augmentation import AUGMENTATIONS, is_augmentation
from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.losses.base import named_losses
from mm_tuning_plugin.nodes.base import node_kind, node_kinds
from mm_tuning_plugin.recipes.base import recipes

Check = Callable[[Any], bool]


@dataclass(frozen=True)
class Option:
    """What is known of an option, beside its name and type.

    Attributes:
        name: Its name.
        default: Its value if the config gives none.
        check: Whether a value is allowed.
        expected: What is allowed, in words.
        effect: What it does, for docs/options.md.
        changes_weights: Whether the tuned weights depend on it. If so, it is part of the
            fingerprint of a tuning.
        introduced: Its default when it was introduced. A fingerprint without the option was
            written before that, and is read as if it had this value.
        once_counted_unless: Of an option that fingerprints of earlier versions hold: the value at
            which it had no effect.
    """

    name: str
    default: Any
    check: Check
    expected: str
    effect: str
    changes_weights: bool
    introduced: Any
    once_counted_unless: Any


def declare_option(
    default: Any,
    check: Check,
    expected: str,
    effect: str,
    *,
    changes_weights: bool = True,
    introduced: Any = MISSING,
    once_counted_unless: Any = MISSING,
) -> Any:
    """Declare a field of `Options`; see `Option`."""
    known = dict(
        check=check,
        expected=expected,
        effect=effect,
        changes_weights=changes_weights,
        introduced=default if introduced is MISSING else introduced,
        once_counted_unless=once_counted_unless,
    )
    return field(default=default, metadata=known)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _integer(low: int, high: float = float('inf')) -> Check:
    return lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high


def _number(low: float, high: float = float('inf'), *, above: bool = False) -> Check:
    return lambda v: _is_number(v) and (low < v if above else low <= v) and v <= high


def _one_of(*choices: object) -> Check:
    return lambda v: any(v is choice or v == choice for choice in choices)


def _optional(check: Check) -> Check:
    return lambda v: v is None or check(v)


def _is_path(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_names(value: object) -> bool:
    return value == 'auto' or (
        isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value)
    )


def _is_pictures(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(name in PICTURES for name in value)


def _is_size_range(value: object) -> bool:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return False
    low, high = value
    if not (_is_number(low) and _is_number(high) and 0 < low <= high):
        return False
    if isinstance(low, int) and isinstance(high, int):
        return low >= 2 and high // 2 * 2 >= low  # sides are even: one must lie in the range
    return isinstance(low, float) and isinstance(high, float) and high <= 4


def _is_nodes(value: object) -> bool:
    if isinstance(value, Mapping):
        return bool(base_type(value)) and value.get('like', 'points') in node_kinds()
    return value in node_kinds()


def _is_levels(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
    return value in ('head', 'all')


def _is_loss(value: object) -> bool:
    return 'type' in value if isinstance(value, Mapping) else value in tuple(named_losses())


PICTURES_OF_RETRIEVAL = ('embedding', 'tsne', 'gallery', 'similarity')
"""Pictures of the nodes of node retrieval."""

PICTURES = ('mosaic', *PICTURES_OF_RETRIEVAL)


@dataclass(frozen=True)
class Options:
    """The options of ``mix_and_match``, one field each, in the order of docs/options.md.

    Validation, the documentation, the fingerprint of a tuning and the arms of a benchmark are
    derived from these fields. To add an option, add a field.
    """

    recipe: str = declare_option(
        'default',
        lambda v: v in tuple(recipes()),
        ' or '.join(map(repr, recipes())),
        "Set of defaults. 'paper' follows Zhan et al. (AAAI 2018): patches, graph triplets.",
    )
    enabled: bool = declare_option(
        True,
        _is_flag,
        'True or False',
        'False skips tuning: the baseline, fine-tuned from the same weights.',
        changes_weights=False,
    )
    checkpoint: str | None = declare_option(
        None,
        _optional(_is_path),
        'a file, or None',
        'Self-supervised weights. They replace `pretrained` and `init_cfg` of the config.',
        changes_weights=False,
    )
    tuned_backbone: str | None = declare_option(
        None,
        _optional(_is_path),
        'a file, or None',
        'A finished `tuned_backbone.pth` or `.safetensors`: skips tuning, fine-tunes from it.',
        changes_weights=False,
    )
    safetensors: bool = declare_option(
        False,
        _is_flag,
        'True or False',
        'Also write `tuned_backbone.safetensors`.',
        changes_weights=False,
    )
    overwrite: bool = declare_option(
        False,
        _is_flag,
        'True or False',
        'Replace a finished tuning with other settings.',
        changes_weights=False,
    )
    min_matched: float = declare_option(
        0.9,
        _number(0, 1),
        '0 to 1',
        'Minimum share of every stage of the backbone that the checkpoint must fill.',
        changes_weights=False,
    )
    checkpoint_prefix: str | None = declare_option(
        None,
        _optional(_is_path),
        'a dotted name, or None',
        'Place of the weights in the checkpoint (`state_dict.net_a`). None: found. Needed '
        'only if two networks of the file fit equally well.',
        changes_weights=False,
    )
    allow_pickle: bool = declare_option(
        False,
        _is_flag,
        'True or False',
        'Allow the checkpoint to run code when it is unpickled. Only for files you trust.',
        changes_weights=False,
    )
    max_iters: int = declare_option(2000, _integer(1), 'an integer from 1', 'Iterations of tuning.')
    lr: float | None = declare_option(
        None,
        _optional(_number(0, above=True)),
        'a number above 0, or None',
        "Learning rate of tuning. None: 0.01 for SGD, the config's own for other optimizers. "
        'A loss that is not finite ends tuning; in mixed precision, more than ten in a row.',
    )
    images_per_batch: int = declare_option(
        16, _integer(1), 'an integer from 1', 'Images of a batch, over all ranks together.'
    )
    nodes: str | ConfigMap = declare_option(
        'points',
        _is_nodes,
        ', '.join(map(repr, node_kinds())) + ', or the config of a transform',
        "'points': pixels of the config's own crops; 'patches': resized squares. A registered "
        "transform can replace them, `like='points'` (whole images, read at points) or "
        "`like='patches'`; it is also given `num_classes` and `ignore_values`.",
    )
    nodes_per_image: int | None = declare_option(
        None,
        _optional(_integer(1)),
        'an integer from 1, or None',
        'Maximum number of nodes in an image. None: '
        + ' or '.join(f'{node_kind(name).nodes_per_image} {name}' for name in node_kinds())
        + '.',
    )
    levels: str | Sequence[int] = declare_option(
        'head',
        _is_levels,
        "'head', 'all', or a list of integers",
        "Levels of the backbone's output in a node's embedding: those that the decode "
        'head reads, all of them, or these.',
    )
    points_per_class: int = declare_option(
        8, _integer(1), 'an integer from 1', 'Points: maximum number of one class in an image.'
    )
    border_share: float = declare_option(
        0.0,
        _number(0, 1),
        '0 to 1',
        "Points: share of a class's points in an image within 3 pixels of another label.",
    )
    size_range: Sequence[float] = declare_option(
        (64, 256),
        _is_size_range,
        'a pair (smallest, largest), both ints from 2 (pixels, an even one among '
        'them) or both floats up to 4.0 (shares of the shorter side), not reversed',
        'Patches: range of their sides.',
    )
    patch_size: int = declare_option(
        128,
        _integer(16, 4096),
        'an integer from 16 to 4096',
        'Patches: side after resizing, pixels.',
    )
    balance: str = declare_option(
        'pixel',
        _one_of('pixel', 'class'),
        "'pixel' or 'class'",
        'Patches: centres uniform over pixels, or over the classes of the image first.',
    )
    background_index: str | int | None = declare_option(
        'auto',
        lambda v: v == 'auto' or v is None or _integer(0, 254)(v),
        "'auto', None, or a class index",
        "Patches: the background class. 'auto': class 0 if it is named background, otherwise none.",
    )
    background_ratio: float = declare_option(
        0.1,
        _number(0, 1),
        '0 to 1',
        'Patches: share drawn on the background class, if there is one.',
    )
    max_overlap: float = declare_option(
        0.6,
        _number(0, 1),
        '0 to 1',
        'Patches: maximum share of a patch that the others may cover; more drops it.',
    )
    transforms: str | Sequence[str] = declare_option(
        'auto',
        _is_names,
        "'auto', or a list of transform types",
        "Geometric and photometric transforms of the config that tuning keeps. 'auto': all for "
        'points, random flips for patches.',
    )
    augment: str | Sequence[ConfigMap] | None = declare_option(
        None,
        is_augmentation,
        ', '.join(map(repr, AUGMENTATIONS)) + ', a list of configs of transforms, or None',
        "Augmentation for tuning only, before the config's first crop. 'strong': half to twice "
        "the size, and twice the ranges of mmseg's PhotoMetricDistortion.",
    )
    loss: str | ConfigMap = declare_option(
        'prototype_contrastive',
        _is_loss,
        ', '.join(map(repr, named_losses())) + ', or the config of a registered loss',
        'The loss that pulls nodes of a class together and pushes classes apart. '
        "'balanced_contrastive': all classes have the same weight, whatever their nodes. "
        "'prototype_contrastive': the same, and a learnt prototype of each class. "
        "'cross_entropy' does not match: a linear classifier on the same nodes, a control "
        '(no projection).',
    )
    margin: float = declare_option(
        2.1, _number(0, above=True), 'a number above 0', 'Triplet losses: margin.'
    )
    temperature: float = declare_option(
        0.1, _number(0, above=True), 'a number above 0', 'Contrastive losses: divides the cosines.'
    )
    graph_groups: int = declare_option(
        1,
        _integer(1),
        'an integer from 1 that divides `images_per_batch`',
        'Groups of images, over all ranks together, matched separately. 1: all '
        'nodes of a batch in one graph. As many as ranks: one graph per GPU, as in the paper.',
    )
    projection_channels: int = declare_option(
        128,
        _integer(0),
        'an integer from 0',
        'Width of the projection, which is dropped after tuning; 0: none.',
    )
    grid_size: int = declare_option(
        4,
        _integer(1, 64),
        'an integer from 1 to 64',
        'Patches: side of the grid that features are pooled to before they are flattened.',
    )
    chunk_size: int | None = declare_option(
        None,
        _optional(_integer(1)),
        'an integer from 1, or None',
        'Maximum number of images (or patches) in the backbone at once on a rank. Each chunk '
        'is computed again in the backward pass, so memory does not grow with the batch. '
        "BatchNorm uses each chunk's statistics. None: the whole batch, computed once.",
    )
    bn_crops: int = declare_option(
        0,
        _integer(0),
        'an integer from 0',
        "Number of crops of the config's training pipeline, over all ranks together, on which "
        'the trained BatchNorm statistics are estimated again before the tuned backbone is '
        'written; 0: keep those of tuning.',
        changes_weights=False,
        once_counted_unless=0,
    )
    checkpoint_interval: int = declare_option(
        500,
        _integer(1),
        'an integer from 1',
        'Iterations between checkpoints of tuning.',
        changes_weights=False,
    )
    val_interval: int | None = declare_option(
        None,
        _optional(_integer(1)),
        'an integer from 1, or None',
        'Iterations between measurements of node retrieval. None: before and after only.',
        changes_weights=False,
    )
    retrieval_images: int = declare_option(
        64,
        _integer(0),
        'an integer from 0',
        'Images for node retrieval, the same number for gallery and queries; 0: not measured.',
        changes_weights=False,
    )
    pictures: Sequence[str] = declare_option(
        ('mosaic', 'embedding', 'gallery', 'similarity'),
        _is_pictures,
        'a list of ' + ', '.join(map(repr, PICTURES)),
        'Drawn into `tuning/pictures` and by the visualizer; training is the same to the bit. '
        "'mosaic': the mixed batch. The others show the nodes of node retrieval before and after: "
        'a map (PCA, or t-SNE), nearest neighbours, mean cosines of classes. On one '
        'core the default takes 3 to 4 seconds in all with 11 classes and 10 with 150, 5 % of the '
        "76 s of a stage of CamVid's smallest config; 'tsne' takes half a minute per picture.",
        changes_weights=False,
    )
    picture_interval: int | None = declare_option(
        None,
        _optional(_integer(1)),
        'an integer from 1, or None',
        'Iterations between pictures. None: the first batch, and all others at the end. If '
        'no validation has embedded the nodes of an iteration, they are embedded again.',
        changes_weights=False,
    )
    report: bool = declare_option(
        True,
        _is_flag,
        'True or False',
        'Write report.html into the work_dir at the end of both stages.',
        changes_weights=False,
    )
    compare: str | None = declare_option(
        None,
        _optional(_is_path),
        'a folder, or None',
        'The work_dir of another finished run, usually the baseline. The report compares its '
        'classes (`--compare`).',
        changes_weights=False,
    )
    keep_hooks: Sequence[str] = declare_option(
        (),
        lambda v: v != 'auto' and _is_names(v),
        'a list of hook types',
        'Custom hooks of the config that also run during tuning. None by default.',
    )


def known_options(kind: type[Options] = Options) -> tuple[Option, ...]:
    """What is known of each option."""
    return tuple(Option(f.name, f.default, **f.metadata) for f in fields(kind))


OPTIONS = known_options()


def counted_options(options: Options) -> PlainConfig:
    """The options that the tuned weights depend on."""
    known = known_options(type(options))
    return {each.name: getattr(options, each.name) for each in known if each.changes_weights}


def resolve_options(given: ConfigMap | None, kind: type[Options] = Options) -> Options:
    """Validate the options of a config and fill in the rest.

    Args:
        given: The config's ``mix_and_match``.
        kind: `Options`, or a class derived from it with more fields.

    Returns:
        A value for every option.

    Raises:
        UserError: An option does not exist, or a value is out of its range.
    """
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise UserError('mix_and_match', f'{given!r} found', 'expected a dict of options')
    table = {option.name: option for option in known_options(kind)}
    _check_values(given, table, 'mix_and_match')
    name = given.get('recipe', table['recipe'].default)
    defaults = recipes()[name].defaults
    _check_values(defaults, table, f'recipe {name!r}')
    given = {**defaults, **given}
    options = kind(**given)
    if options.nodes_per_image is None:
        number = node_kind(options.nodes).nodes_per_image
        options = replace(options, nodes_per_image=number)
    return options


def _check_values(given: ConfigMap, table: Mapping[str, Option], where: str) -> None:
    for name, value in given.items():
        if name not in table:
            near = difflib.get_close_matches(str(name), table, n=1, cutoff=0.0)
            raise UserError(
                f'{where}.{name}', 'no such option', f'the nearest known one is {near[0]}'
            )
        if not table[name].check(value):
            raise UserError(
                f'{where}.{name}', f'{value!r} found', f'expected {table[name].expected}'
            )


def options_table() -> str:
    """The Markdown table of all options; `docs/options.md` holds it."""
    rows = ['| option | default | allowed | effect |', '|---|---|---|---|']
    for option in OPTIONS:
        shown = f'`{option.default!r}`'
        for recipe in recipes().values():
            if option.name in recipe.defaults:
                shown += f' (`{recipe.defaults[option.name]!r}` in {recipe.name!r})'
        rows.append(f'| `{option.name}` | {shown} | {option.expected} | {option.effect} |')
    return '\n'.join(rows)
