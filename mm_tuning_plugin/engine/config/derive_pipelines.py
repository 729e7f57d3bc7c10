"""From the user's transforms to those of stage one.

A transform is one of three things: it moves or colours pixels (the tables below), it packs, or it
loads and maps labels: everything else, so that a transform of the user's that we do not know is
kept. Loading and label mapping is kept always; moving and colouring only if listed.

What moves pixels *before* the labels are loaded moves the image alone (`early_moves`):

* In training data it stays where it stands, in whatever is derived: label maps are then of another
  size than the files of their images, and the network sees the image as those steps leave it.
* Validation of mmseg resizes the image before it loads labels of the file's size, and compares at
  that size. There these steps are taken out, and image and labels are resized together. Only where
  the training data has early moves may label maps of validation be of another size as well:
  `FitToLabels` then looks at each sample whether image and labels, or the image alone is moved.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mmcv.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS

from mm_tuning_plugin.config_types import base_type, class_of
from mm_tuning_plugin.engine.config.dataset_tree import leaf_datasets
from mm_tuning_plugin.engine.config.entry_types import steps_of
from mm_tuning_plugin.engine.config.label_transforms import in_bytes, with_loader

RESIZES = ('Resize', 'ResizeShortestEdge', 'ResizeToMultiple')
FLIPS = ('RandomFlip',)
CROPS = ('RandomCrop', 'CenterCrop')
GEOMETRIC = (
    *RESIZES, *FLIPS, *CROPS, 'RandomResize', 'RandomChoiceResize', 'Pad', 'RandomRotate',
    'RandomRotFlip', 'SegRescale', 'RandomCutOut', 'Albu', 'RandomChoice', 'RandomApply',
)  # fmt: skip
PHOTOMETRIC = (
    'PhotoMetricDistortion', 'AdjustGamma', 'CLAHE', 'Rerange', 'RGB2Gray', 'RandomGrayscale',
    'Normalize',
)  # fmt: skip
CHOICES = ('RandomChoice', 'RandomApply')
# Of these, each draw moves the image elsewhere, away from labels that are loaded behind them.
MISPLACING = (
    *FLIPS, 'RandomCrop', 'RandomResize', 'RandomChoiceResize', 'RandomRotate', 'RandomRotFlip',
)  # fmt: skip
# They need a second image, or another form of label; stage one always goes without.
NEVER = (
    'RandomMosaic', 'GenerateEdge', 'RandomDepthMix', 'MultiScaleFlipAug', 'TestTimeAug',
)  # fmt: skip
# They load an image and no labels, or change an image that is loaded.
IMAGE_LOADERS = (
    'LoadImageFromFile', 'LoadImageFromNDArray', 'LoadImageFromNpyFile',
    'LoadBiomedicalImageFromFile', 'LoadSingleRSImageFromFile', 'GreyImage',
)  # fmt: skip
LABEL_LOADER = re.compile(r'Load\w*(Ann|Label|Mask|Seg|Gt|GT)')
NO_LABELS = ('LoadDepthAnnotation',)
LABEL_METRICS = ('IoUMetric', 'ImageIoUMetric', 'CityscapesMetric')
PACKING = ('PackSegInputs', 'DefaultFormatBundle', 'Collect', 'ToTensor', 'ImageToTensor')


def tuning_pipeline(
    pipeline: Sequence[Mapping[str, Any]],
    keep: Sequence[str],
    check: Mapping[str, Any],
    sample: Mapping[str, Any],
    augment: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Derive the pipeline of stage one.

    Args:
        pipeline: The user's transforms, of training data.
        keep: Types of geometric and photometric transforms that stay; early moves stay always.
        check: Config of the label check; it stands right behind the last transform that loads or
            maps labels.
        sample: Config of the transform that draws the nodes.
        augment: Transforms that stage one has beside the user's.

    Returns:
        Configs of the transforms, packing included.
    """
    early = labels_at(pipeline)
    kept = [
        copy.deepcopy(dict(step))
        for place, step in enumerate(pipeline)
        if _loads(step)
        or (place < early and _moves(step))
        or (base_type(step) in keep and base_type(step) not in NEVER + PACKING)
    ]
    last = max((i for i, step in enumerate(kept) if _loads(step)), default=-1)
    check = with_loader(check, kept[: last + 1], pipeline)
    kept.insert(last + 1, dict(check))
    kept = with_augmentation(kept, augment)
    at, ignored = kept.index(check), check.get('ignore_values', ())
    kept = kept[: at + 1] + [dict(in_bytes(step, ignored)) for step in kept[at + 1 :]]
    return [*kept, dict(sample), dict(type='mm_tuning_plugin.PackNodeInputs')]


def with_augmentation(
    pipeline: Sequence[Mapping[str, Any]], extra: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Copy a pipeline with transforms before its first crop, or else before it packs.

    The crop then keeps the size of what a network sees, whatever comes before it. A crop before
    the labels are loaded does not count.
    """
    loaded = labels_at(pipeline)
    ends = [i for i, s in enumerate(pipeline) if i >= loaded and base_type(s) in CROPS + PACKING]
    at = min(ends, default=len(pipeline))
    return [copy.deepcopy(dict(step)) for step in [*pipeline[:at], *extra, *pipeline[at:]]]


def retrieval_pipeline(
    pipeline: Sequence[Mapping[str, Any]],
    resizes: Sequence[Mapping[str, Any]],
    check: Mapping[str, Any],
    sample: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Derive the pipeline of node retrieval in training images: load, resize as for validation.

    Args:
        pipeline: The user's transforms, of training data.
        resizes: Of the user's validation. Images that early moves have brought to the size of
            their labels are at their scale, and are not resized again.
        check: Config of the label check.
        sample: Config of the transform that draws the nodes.
    """
    derived = tuning_pipeline(pipeline, (), check, sample)
    return derived if early_moves(pipeline) else before_sampling(derived, resizes)


def validation_pipeline(
    pipeline: Sequence[Mapping[str, Any]],
    resizes: Sequence[Mapping[str, Any]],
    check: Mapping[str, Any],
    sample: Mapping[str, Any],
    fit: bool,
) -> list[dict[str, Any]]:
    """Derive the pipeline of node retrieval in validation images: load, then resize.

    mmseg's validation resizes before it loads the labels, which stay at their own size; here
    labels and image must move together, so `resizes` come after the loading.

    Args:
        pipeline: The user's transforms, of validation data.
        resizes: Those of them that resize; none, to look at the labels as they are loaded.
        check: Config of the label check.
        sample: Config of the transform that draws the nodes.
        fit: Whether label maps may be of another size than their images' files.
    """
    loaded, early = labels_at(pipeline), early_moves(pipeline)
    before = [step for step in pipeline[:loaded] if not _moves(step)]
    derived = tuning_pipeline([*before, *pipeline[loaded:]], (), check, sample)
    if not (fit and early):
        return before_sampling(derived, resizes)
    at = labels_at(derived) + 1
    derived.insert(at, dict(type='mm_tuning_plugin.FitToLabels', transforms=copy.deepcopy(early)))
    return before_sampling(derived, resizes_of(pipeline[loaded:]) if resizes else ())


def before_sampling(
    derived: list[dict[str, Any]], steps: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A derived pipeline with further steps before nodes are drawn and packed."""
    return [*derived[:-2], *(copy.deepcopy(dict(step)) for step in steps), *derived[-2:]]


def resizes_of(pipeline: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The transforms of a validation pipeline that only resize."""
    return [step for step in pipeline if base_type(step) in RESIZES]


def crop_size(dataset: Mapping[str, Any]) -> tuple[int, int] | None:
    """(H, W) of the crops that a training data set gives, pixels; None: it gives none.

    That of the last transform that crops; of several data sets, of the first that has one.
    """
    for step in reversed(steps_of(dataset)):
        size = step.get('crop_size') if base_type(step) in CROPS else None
        size = [size, size] if isinstance(size, int) else size
        if isinstance(size, (list, tuple)) and len(size) == 2:  # another is told where it is built
            height, width = size
            # mmcv counts (W, H) where mmseg counts (H, W)
            return (width, height) if base_type(step) == 'CenterCrop' else (height, width)
    inner = [dataset.get('dataset'), *(dataset.get('datasets') or [])]
    found = (crop_size(part) for part in inner if isinstance(part, Mapping))
    return next((size for size in found if size is not None), None)


def early_moves(pipeline: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The geometric transforms before the labels are loaded: they move the image alone."""
    return [dict(step) for step in pipeline[: labels_at(pipeline)] if _moves(step)]


def has_early_moves(dataset: Mapping[str, Any]) -> bool:
    """Whether a data set, under any wrappers, has pipelines that move the image alone."""
    return any(early_moves(steps_of(leaf)) for leaf in leaf_datasets(dataset))


def moving_warnings(dataset: Mapping[str, Any], where: str) -> list[str]:
    """What is told of training data whose image moves at random before its labels are loaded.

    Args:
        dataset: The user's config.
        where: Its place in the config.

    Returns:
        One line a type of transform.
    """
    early = [step for leaf in leaf_datasets(dataset) for step in early_moves(steps_of(leaf))]
    random = sorted({kind for kind in types_within(early) if kind in MISPLACING})
    return [
        f'{where}: {kind} before the labels are loaded found: it moves the image and leaves the '
        'labels, here as in mmseg; expected behind the loading of labels'
        for kind in random
    ]


def validates_labels(cfg: Mapping[str, Any]) -> bool:
    """Whether validation is about labels: it loads some, or a metric of mmseg's asks for them.

    It may as well only write predictions, of images that have no labels (``format_only``).

    Args:
        cfg: The user's config, with a ``val_dataloader``.
    """
    leaves = leaf_datasets(cfg['val_dataloader'].get('dataset'))
    steps = [step for leaf in leaves for step in steps_of(leaf)]
    given = cfg.get('val_evaluator')
    metrics = [m for m in (given if isinstance(given, list) else [given]) if isinstance(m, Mapping)]
    return any(_loads(step) and not loads_image(step) for step in steps) or any(
        base_type(metric) in LABEL_METRICS and not metric.get('format_only') for metric in metrics
    )


def labels_at(pipeline: Sequence[Mapping[str, Any]]) -> int:
    """Where the labels are loaded: by the first step that is known to, by its class or its name.

    Else by the first step that is not known to do something else; 0 where there is none.
    """
    places = [i for i, step in enumerate(pipeline) if _loads(step)]
    known = next((i for i in places if loads_labels(pipeline[i])), None)
    if known is not None:
        return known
    return next((i for i in places if not loads_image(pipeline[i])), 0)


def loads_labels(step: Mapping[str, Any]) -> bool:
    """Whether a transform is known to load labels; of a cache, whether one of its steps is."""
    if base_type(step) == 'Cached':
        return any(loads_labels(inner) for inner in step.get('transforms') or ())
    kind = base_type(step)
    if kind in (*IMAGE_LOADERS, *NO_LABELS):
        return False
    return LABEL_LOADER.match(kind) is not None or _is_kind_of(step, LoadAnnotations)


def loads_image(step: Mapping[str, Any]) -> bool:
    """Whether a transform is known to load an image and no labels; of a cache, all its steps."""
    if base_type(step) == 'Cached':
        return all(loads_image(inner) for inner in step.get('transforms') or ())
    return base_type(step) in IMAGE_LOADERS


def types_within(steps: Any) -> Iterator[str]:
    """Of transforms, and of those inside them."""
    if isinstance(steps, Mapping):
        yield base_type(steps)
        yield from types_within(steps.get('transforms'))
    elif isinstance(steps, (list, tuple)):
        for step in steps:
            yield from types_within(step)


def with_pipeline(
    dataset: Mapping[str, Any],
    derive: Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]],
    outer: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Copy a data set's config with derived pipelines, through any nest of wrappers.

    ``MultiImageMixDataset`` is replaced by the data set that it mixes: its own transforms are
    appended to the inner ones before the derivation, which drops those that mix.

    Args:
        dataset: The user's config.
        derive: From the user's transforms to those of stage one.
        outer: Transforms of a wrapper around `dataset`.
    """
    if base_type(dataset) == 'MultiImageMixDataset':
        return with_pipeline(dataset['dataset'], derive, [*steps_of(dataset), *outer])
    copied = copy.deepcopy(dict(dataset))
    if copied.get('datasets') is not None:
        copied['datasets'] = [with_pipeline(part, derive, outer) for part in copied['datasets']]
    elif isinstance(copied.get('dataset'), Mapping):
        copied['dataset'] = with_pipeline(copied['dataset'], derive, outer)
    else:
        copied['pipeline'] = derive([*copied['pipeline'], *outer])
    return copied


def _is_kind_of(step: Mapping[str, Any], base: type) -> bool:
    """Whether a transform is registered, or named as a class, that derives from `base`."""
    found = class_of(step, TRANSFORMS)
    return isinstance(found, type) and issubclass(found, base)


def _moves(step: Mapping[str, Any]) -> bool:
    """Whether a transform moves pixels or changes the size of an image."""
    kind = base_type(step)
    if kind in CHOICES:
        return any(map(GEOMETRIC.__contains__, types_within(step.get('transforms'))))
    return kind in GEOMETRIC and kind != 'RandomCutOut'


def _loads(step: Mapping[str, Any]) -> bool:
    """Whether a transform loads or maps labels, as far as its type tells."""
    return base_type(step) not in GEOMETRIC + PHOTOMETRIC + NEVER + PACKING
