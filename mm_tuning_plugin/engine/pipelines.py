"""From the user's transforms to those of stage one.

A transform is one of three things: it moves or colours pixels (the tables below), it packs, or it
loads and maps labels: everything else, so that a transform of the user's that we do not know is
kept. Loading and label mapping is kept always; moving and colouring only if listed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mm_tuning_plugin.config_types import base_type
from mm_tuning_plugin.engine.kinds import steps_of
from mm_tuning_plugin.errors import UserError

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
# They need a second image, or another form of label; stage one always goes without.
NEVER = (
    'RandomMosaic', 'GenerateEdge', 'RandomDepthMix', 'MultiScaleFlipAug', 'TestTimeAug',
)  # fmt: skip
PACKING = ('PackSegInputs', 'DefaultFormatBundle', 'Collect', 'ToTensor', 'ImageToTensor')


def tuning_pipeline(
    pipeline: Sequence[Mapping[str, Any]],
    keep: Sequence[str],
    check: Mapping[str, Any],
    sample: Mapping[str, Any],
    augment: Sequence[Mapping[str, Any]] = (),
) -> list[dict]:
    """Derive the pipeline of stage one.

    Args:
        pipeline: The user's transforms.
        keep: Types of geometric and photometric transforms that stay.
        check: Config of the label check; it stands right behind the last transform that loads or
            maps labels.
        sample: Config of the transform that draws the nodes.
        augment: Transforms that stage one has beside the user's.

    Returns:
        Configs of the transforms, packing included.
    """
    kept = [
        copy.deepcopy(dict(step))
        for step in pipeline
        if _loads(step) or (base_type(step) in keep and base_type(step) not in NEVER + PACKING)
    ]
    last = max((i for i, step in enumerate(kept) if _loads(step)), default=-1)
    kept.insert(last + 1, dict(check))
    kept = with_augmentation(kept, augment)
    return [*kept, dict(sample), dict(type='mm_tuning_plugin.PackNodeInputs')]


def with_augmentation(
    pipeline: Sequence[Mapping[str, Any]], extra: Sequence[Mapping[str, Any]]
) -> list[dict]:
    """Copy a pipeline with transforms before its first crop, or else before it packs.

    The crop then keeps the size of what a network sees, whatever comes before it.
    """
    ends = [
        next((i for i, step in enumerate(pipeline) if base_type(step) in kinds), len(pipeline))
        for kinds in (CROPS, PACKING)
    ]
    at = min(ends)
    return [copy.deepcopy(dict(step)) for step in [*pipeline[:at], *extra, *pipeline[at:]]]


def retrieval_pipeline(
    pipeline: Sequence[Mapping[str, Any]],
    resizes: Sequence[Mapping[str, Any]],
    check: Mapping[str, Any],
    sample: Mapping[str, Any],
) -> list[dict]:
    """Derive the pipeline of node retrieval: load, then resize as for the user's validation.

    mmseg's validation resizes before it loads the labels, which stay at their own size; here
    labels and image must move together, so `resizes` come after the loading.
    """
    derived = tuning_pipeline(pipeline, (), check, sample)
    return [*derived[:-2], *(copy.deepcopy(dict(step)) for step in resizes), *derived[-2:]]


def resizes_of(pipeline: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The transforms of a validation pipeline that only resize."""
    return [step for step in pipeline if base_type(step) in RESIZES]


def with_pipeline(
    dataset: Mapping[str, Any],
    derive: Callable[[Sequence[Mapping[str, Any]]], list[dict]],
    outer: Sequence[Mapping[str, Any]] = (),
) -> dict:
    """Copy a data set's config with derived pipelines, through any nest of wrappers.

    ``MultiImageMixDataset`` is replaced by the data set that it mixes: its own transforms are
    appended to the inner ones before the derivation, which drops those that mix.

    Args:
        dataset: The user's config.
        derive: From the user's transforms to those of stage one.
        outer: Transforms of a wrapper around `dataset`.

    Raises:
        UserError: A data set without a pipeline.
    """
    if base_type(dataset) == 'MultiImageMixDataset':
        return with_pipeline(dataset['dataset'], derive, [*steps_of(dataset), *outer])
    copied = copy.deepcopy(dict(dataset))
    if copied.get('datasets') is not None:
        copied['datasets'] = [with_pipeline(part, derive, outer) for part in copied['datasets']]
    elif isinstance(copied.get('dataset'), Mapping):
        copied['dataset'] = with_pipeline(copied['dataset'], derive, outer)
    elif not steps_of(copied):
        raise UserError(f'dataset: {base_type(dataset)} has no pipeline, expected one that loads')
    else:
        copied['pipeline'] = derive([*copied['pipeline'], *outer])
    return copied


def _loads(step: Mapping[str, Any]) -> bool:
    """Whether a transform loads or maps labels, as far as its type tells."""
    return base_type(step) not in GEOMETRIC + PHOTOMETRIC + NEVER + PACKING
