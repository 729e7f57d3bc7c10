"""Whether the reader of a backbone's outputs in fine-tuning can use their channel order.

Stage one brings every map to (B, C, H, W). mmseg's own heads and necks take a tuple of such maps
for granted; a neck, head or segmentor of the user's may bring them there itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mmengine.registry import MODELS

from mm_tuning_plugin.config_types import ConfigMap, class_of, shown_type
from mm_tuning_plugin.engine.config.decode_head import read_levels
from mm_tuning_plugin.engine.config.initial_weights import remove_pretrained
from mm_tuning_plugin.engine.config.meta_build import build_on_meta
from mm_tuning_plugin.engine.preflight.no_side_effects import no_trace
from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.models.channel_layout import FIRST, layout_name
from mm_tuning_plugin.models.outputs import place_of

if TYPE_CHECKING:
    from mm_tuning_plugin.models import MixAndMatchTuner

# Whose classes read dimension 1 as channels.
PACKAGES = ('mmengine', 'mmcv', 'mmseg', 'mmdet', 'mmpretrain', 'mm_tuning_plugin', 'torch')
# Methods of a class that handles the backbone's outputs in its own way.
OF_SEGMENTORS = ('extract_feat', 'loss', 'predict', 'encode_decode', '_forward', 'forward')
OF_READERS = ('loss', 'predict', 'forward', '_forward_feature', '_transform_inputs')


def check_readers(model: ConfigMap, tuner: MixAndMatchTuner, scope: str) -> None:
    """Look at what fine-tuning will read of the backbone that is about to be tuned.

    Args:
        model: The segmentor's config, of fine-tuning.
        tuner: Of stage one, built.
        scope: The config's ``default_scope``.

    Raises:
        UserError: A class of mmseg's own is given what it would misread.
    """
    for reader, levels in _readers(model, scope):
        place = _unnamed(tuner, levels)
        if place is not None:
            raise UserError(
                'model.backbone',
                f'{type(tuner.backbone).__name__} gives a dict of '
                f'{", ".join(map(repr, tuner.level_names))}',
                f'expected a tuple of maps, of which {reader} reads number {place}, or a neck of '
                'your own between them',
            )
        dims = {tuner.channel_dims[i] for i in _places(tuner, levels)} - {FIRST}
        if dims:
            raise UserError(
                'model.backbone',
                f'{_name(model["backbone"])} gives maps {layout_name(min(dims))}, and {reader} '
                'reads (B, C, H, W)',
                _remedy(model['backbone'], scope),
            )


def refuse_misread(model: ConfigMap, tuner: ConfigMap, scope: str) -> None:
    """As `check_readers`, after a look at fine-tuning has failed.

    Maps with their channels last look like maps with a wrong number of channels.

    Args:
        model: The segmentor's config, of fine-tuning.
        tuner: Config of stage one's model.
        scope: The config's ``default_scope``.

    Raises:
        UserError: As `check_readers`. Nothing where stage one's model cannot be built either.
    """
    try:
        with no_trace(scope):
            built = MODELS.build(tuner)
    except Exception:  # the mistake was reported already
        return
    check_readers(model, built, scope)


def _readers(model: ConfigMap, scope: str) -> Iterator[tuple[str, Sequence[int] | None]]:
    """The classes of known packages that read the backbone, and which levels; None: all."""
    if not _is_known(model, OF_SEGMENTORS, scope):
        return
    if isinstance(model.get('neck'), Mapping):
        if _is_known(model['neck'], OF_READERS, scope):
            yield _name(model['neck']), None
        return
    for key in ('decode_head', 'auxiliary_head'):
        heads = model.get(key) or []
        for head in [heads] if isinstance(heads, Mapping) else heads:
            if _is_known(head, OF_READERS, scope):
                yield _name(head), read_levels({'decode_head': head})


def _is_known(config: ConfigMap, methods: Sequence[str], scope: str) -> bool:
    """Whether all that a class does with the outputs is code of `PACKAGES`."""
    kind = class_of(config, MODELS, scope)
    if not isinstance(kind, type):
        return False
    owners = (next((c for c in kind.__mro__ if name in vars(c)), None) for name in methods)
    return all(owner is None or owner.__module__.split('.')[0] in PACKAGES for owner in owners)


def _places(tuner: MixAndMatchTuner, levels: Sequence[int] | None) -> list[int]:
    """Positions of the levels that a reader reads; what does not exist is left out."""
    if levels is None:
        return list(range(tuner.num_levels))
    found = (place_of(level, tuner.level_names) for level in levels)
    return [place for place in found if place is not None]


def _unnamed(tuner: MixAndMatchTuner, levels: Sequence[int] | None) -> int | None:
    """Return a level that is not a key of a dict of maps; None if all are."""
    wanted = range(tuner.num_levels) if levels is None else levels
    if tuner.level_names == list(range(tuner.num_levels)):
        return None
    return next((level for level in wanted if level not in tuner.level_names), None)


def _remedy(backbone: ConfigMap, scope: str) -> str:
    """How the maps of a backbone become what mmseg reads."""
    changed = {**remove_pretrained(backbone), 'feature_cls': 'getter'}
    try:
        network = getattr(build_on_meta(changed, scope), 'timm_model', None)
        if hasattr(getattr(network, 'model', None), 'forward_intermediates'):
            return "set feature_cls='getter' in it, with which timm gives (B, C, H, W)"
    except Exception:  # not timm's wrapper, or a network without this option
        pass
    return 'permute them in the backbone, or in a neck of your own'


def _name(config: ConfigMap) -> str:
    """A type, and of a wrapper of timm's the network in it."""
    name = shown_type(config)
    return f'{name} {config["model_name"]}' if 'model_name' in config else name
