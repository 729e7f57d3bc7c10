"""Derive the transforms of stage one from the user's.

The tables below list the transforms that move pixels, change colours, or pack. Every other
transform counts as loading or mapping labels, so unknown transforms of the user are kept. Loading
and mapping always stay; moving and colouring stay only if they are listed as kept.

A transform that moves pixels *before* the labels are loaded moves only the image (`early_moves`):

* In training data it stays in place. Label maps then differ in size from the image files, and the
  network sees the image as these transforms leave it.
* mmseg's validation resizes the image, then loads labels at the file's size. Stage one removes
  these early transforms and resizes image and labels together. If the training data has early
  moves, validation's label maps may also differ in size from the image files: `FitToLabels` then
  decides per sample whether to move image and labels, or the image alone.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from mmcv.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS

from mm_tuning_plugin.config_types import ConfigMap, PlainConfig, base_type, class_of
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
# They move the image at random, so labels that are loaded after them no longer match.
MISPLACING = (
    *FLIPS, 'RandomCrop', 'RandomResize', 'RandomChoiceResize', 'RandomRotate', 'RandomRotFlip',
)  # fmt: skip
# They need a second image or another form of labels. Stage one never uses them.
NEVER = (
    'RandomMosaic', 'GenerateEdge', 'RandomDepthMix', 'MultiScaleFlipAug', 'TestTimeAug',
)  # fmt: skip
# They load an image, or change a loaded one, and do not touch labels.
IMAGE_LOADERS = (
    'LoadImageFromFile', 'LoadImageFromNDArray', 'LoadImageFromNpyFile',
    'LoadBiomedicalImageFromFile', 'LoadSingleRSImageFromFile', 'GreyImage',
)  # fmt: skip
LABEL_LOADER = re.compile(r'Load\w*(Ann|Label|Mask|Seg|Gt|GT)')
NO_LABELS = ('LoadDepthAnnotation',)
LABEL_METRICS = ('IoUMetric', 'ImageIoUMetric', 'CityscapesMetric')
PACKING = ('PackSegInputs', 'DefaultFormatBundle', 'Collect', 'ToTensor', 'ImageToTensor')


def tuning_pipeline(
    pipeline: Sequence[ConfigMap],
    keep: Sequence[str],
    check: ConfigMap,
    sample: ConfigMap,
    augment: Sequence[ConfigMap] = (),
) -> list[PlainConfig]:
    """Derive the pipeline of stage one.

    Args:
        pipeline: The user's transforms, of training data.
        keep: Types of geometric and photometric transforms that stay. Early moves always stay.
        check: Config of the label check. It follows the last transform that loads or maps labels.
        sample: Config of the transform that draws the nodes.
        augment: Further transforms of stage one.

    Returns:
        Configs of the transforms, including packing.
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
    pipeline: Sequence[ConfigMap], extra: Sequence[ConfigMap]
) -> list[PlainConfig]:
    """Copy a pipeline and insert transforms before its first crop, or else before packing.

    The crop then keeps the size of the network's input. A crop before the labels are loaded does
    not count.
    """
    loaded = labels_at(pipeline)
    ends = [i for i, s in enumerate(pipeline) if i >= loaded and base_type(s) in CROPS + PACKING]
    at = min(ends, default=len(pipeline))
    return [copy.deepcopy(dict(step)) for step in [*pipeline[:at], *extra, *pipeline[at:]]]


def retrieval_pipeline(
    pipeline: Sequence[ConfigMap],
    resizes: Sequence[ConfigMap],
    check: ConfigMap,
    sample: ConfigMap,
) -> list[PlainConfig]:
    """Derive the pipeline of node retrieval in training images: load, resize as in validation.

    Args:
        pipeline: The user's transforms of training data.
        resizes: Those of the user's validation. They are not used if early moves already resize
            the images to the size of their labels.
        check: Config of the label check.
        sample: Config of the transform that draws the nodes.
    """
    derived = tuning_pipeline(pipeline, (), check, sample)
    return derived if early_moves(pipeline) else before_sampling(derived, resizes)


def validation_pipeline(
    pipeline: Sequence[ConfigMap],
    resizes: Sequence[ConfigMap],
    check: ConfigMap,
    sample: ConfigMap,
    fit: bool,
) -> list[PlainConfig]:
    """Derive the pipeline of node retrieval in validation images: load, then resize.

    mmseg's validation resizes the image before it loads the labels. Here image and labels must move
    together, so `resizes` follow the loading.

    Args:
        pipeline: The user's transforms of validation data.
        resizes: Those of them that resize; empty to keep the size of the labels.
        check: Config of the label check.
        sample: Config of the transform that draws the nodes.
        fit: Whether label maps may differ in size from the image files.
    """
    loaded, early = labels_at(pipeline), early_moves(pipeline)
    before = [step for step in pipeline[:loaded] if not _moves(step)]
    derived = tuning_pipeline([*before, *pipeline[loaded:]], (), check, sample)
    if not (fit and early):
        return before_sampling(derived, resizes)
    at = labels_at(derived) + 1
    derived.insert(at, dict(type='mm_tuning_plugin.FitToLabels', transforms=copy.deepcopy(early)))
    return before_sampling(derived, resizes_of(pipeline[loaded:]) if resizes else ())


def before_sampling(derived: list[PlainConfig], steps: Sequence[ConfigMap]) -> list[PlainConfig]:
    """Insert transforms before the nodes are drawn and packed."""
    return [*derived[:-2], *(copy.deepcopy(dict(step)) for step in steps), *derived[-2:]]


def resizes_of(pipeline: Sequence[ConfigMap]) -> list[ConfigMap]:
    """Return the transforms that only resize."""
    return [step for step in pipeline if base_type(step) in RESIZES]


def crop_size(dataset: ConfigMap) -> tuple[int, int] | None:
    """Return the (H, W) of a training data set's crops, in pixels; None if it does not crop.

    It is the size of the last transform that crops, in the first data set that has one.
    """
    for step in reversed(steps_of(dataset)):
        size = step.get('crop_size') if base_type(step) in CROPS else None
        size = [size, size] if isinstance(size, int) else size
        if isinstance(size, (list, tuple)) and len(size) == 2:  # others fail when they are built
            height, width = size
            # mmcv's sizes are (W, H), mmseg's (H, W)
            return (width, height) if base_type(step) == 'CenterCrop' else (height, width)
    inner = [dataset.get('dataset'), *(dataset.get('datasets') or [])]
    found = (crop_size(part) for part in inner if isinstance(part, Mapping))
    return next((size for size in found if size is not None), None)


def early_moves(pipeline: Sequence[ConfigMap]) -> list[PlainConfig]:
    """Return the geometric transforms before the labels are loaded. They move only the image."""
    return [dict(step) for step in pipeline[: labels_at(pipeline)] if _moves(step)]


def has_early_moves(dataset: ConfigMap) -> bool:
    """Whether a data set, inside any wrappers, has a pipeline with early moves."""
    return any(early_moves(steps_of(leaf)) for leaf in leaf_datasets(dataset))


def moving_warnings(dataset: ConfigMap, where: str) -> list[str]:
    """Warn of transforms that move an image at random before its labels are loaded.

    Args:
        dataset: Config of the training data.
        where: Its place in the user's config.

    Returns:
        One line for each type of transform.
    """
    early = [step for leaf in leaf_datasets(dataset) for step in early_moves(steps_of(leaf))]
    random = sorted({kind for kind in types_within(early) if kind in MISPLACING})
    return [
        f'{where}: {kind} comes before the loading of labels, so it moves the image and not the '
        'labels, here and in mmseg; put it after the loading of labels'
        for kind in random
    ]


def validates_labels(cfg: ConfigMap) -> bool:
    """Whether validation uses labels: it loads them, or one of mmseg's metrics needs them.

    Otherwise it only writes predictions of unlabelled images (``format_only``).

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


def labels_at(pipeline: Sequence[ConfigMap]) -> int:
    """Return the index of the transform that loads the labels.

    It is the first that is known to load labels by its class or name, or else the first that is not
    known to do something else; 0 if there is none.
    """
    places = [i for i, step in enumerate(pipeline) if _loads(step)]
    known = next((i for i in places if loads_labels(pipeline[i])), None)
    if known is not None:
        return known
    return next((i for i in places if not loads_image(pipeline[i])), 0)


def loads_labels(step: ConfigMap) -> bool:
    """Whether a transform, or one inside a cache, is known to load labels."""
    if base_type(step) == 'Cached':
        return any(loads_labels(inner) for inner in step.get('transforms') or ())
    kind = base_type(step)
    if kind in (*IMAGE_LOADERS, *NO_LABELS):
        return False
    return LABEL_LOADER.match(kind) is not None or _is_kind_of(step, LoadAnnotations)


def loads_image(step: ConfigMap) -> bool:
    """Whether a transform, or all those inside a cache, are known to load only images."""
    if base_type(step) == 'Cached':
        return all(loads_image(inner) for inner in step.get('transforms') or ())
    return base_type(step) in IMAGE_LOADERS


def types_within(steps: object) -> Iterator[str]:
    """Yield the types of transforms and of those inside them."""
    if isinstance(steps, Mapping):
        yield base_type(steps)
        yield from types_within(steps.get('transforms'))
    elif isinstance(steps, (list, tuple)):
        for step in steps:
            yield from types_within(step)


def with_pipeline(
    dataset: ConfigMap,
    derive: Callable[[Sequence[ConfigMap]], list[PlainConfig]],
    outer: Sequence[ConfigMap] = (),
) -> PlainConfig:
    """Copy a data set's config and derive its pipelines, inside any wrappers.

    ``MultiImageMixDataset`` is replaced by the data set that it mixes. Its transforms are appended
    to the inner ones before `derive` is called, which removes those that mix.

    Args:
        dataset: The user's config.
        derive: Maps the user's transforms to those of stage one.
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


def _is_kind_of(step: ConfigMap, base: type) -> bool:
    """Whether the class of a transform is derived from `base`."""
    found = class_of(step, TRANSFORMS)
    return isinstance(found, type) and issubclass(found, base)


def _moves(step: ConfigMap) -> bool:
    """Whether a transform moves pixels or resizes the image."""
    kind = base_type(step)
    if kind in CHOICES:
        return any(map(GEOMETRIC.__contains__, types_within(step.get('transforms'))))
    return kind in GEOMETRIC and kind != 'RandomCutOut'


def _loads(step: ConfigMap) -> bool:
    """Whether a transform counts as loading or mapping labels."""
    return base_type(step) not in GEOMETRIC + PHOTOMETRIC + NEVER + PACKING
