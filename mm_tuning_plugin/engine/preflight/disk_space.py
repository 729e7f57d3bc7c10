"""How much room on the disk the checkpoints of both stages will take, before any is written."""

from __future__ import annotations

import math

from mmengine.config import Config
from torch import nn

from mm_tuning_plugin.config_types import ConfigMap, base_type
from mm_tuning_plugin.engine.common.messages import config_named
from mm_tuning_plugin.engine.config.meta_build import build_on_meta
from mm_tuning_plugin.engine.config.options import Options
from mm_tuning_plugin.engine.preflight.fine_tuning.network import without_weights

TUNING_KEPT = 2  # checkpoints of stage one that stay
_MOMENTS = {'SGD': 0, 'Lion': 1, 'RMSprop': 1, 'Adagrad': 1}  # of Adam's kin 2


def bytes_needed(cfg: Config, options: Options) -> tuple[int, str]:
    """Estimate what both stages leave in the work_dir, and one file more while it is replaced.

    Args:
        cfg: The user's config.
        options: Resolved options of ``mix_and_match``.

    Returns:
        Bytes, and what they are made of, in words. Hooks that keep weights of their own (EMA) are
        not counted.

    Raises:
        UserError: The model cannot be built.
    """
    scope = cfg.get('default_scope') or 'mmseg'
    with config_named(RuntimeError):
        model = build_on_meta(without_weights(cfg), scope)
    moments = _moments(cfg['optim_wrapper']['optimizer'])
    hook = dict((cfg.get('default_hooks') or {}).get('checkpoint') or {})
    whole = _checkpoint(model, moments if hook.get('save_optimizer', True) else 0)
    count = kept_checkpoints(cfg)
    needed, parts = (count + 1) * whole, [f'{count} of fine-tuning, {_mega(whole)} each']
    if options.enabled and options.tuned_backbone is None:
        written = math.ceil(options.max_iters / options.checkpoint_interval)
        tuning = _checkpoint(model.backbone, moments)
        needed += min(TUNING_KEPT, written) * tuning + _checkpoint(model.backbone, 0)
        parts.insert(0, f'{min(TUNING_KEPT, written)} of tuning, {_mega(tuning)} each')
    return needed, '; '.join(parts)


def kept_checkpoints(cfg: ConfigMap) -> int:
    """How many checkpoints of fine-tuning stay, the best and the last included."""
    hook = dict((cfg.get('default_hooks') or {}).get('checkpoint') or {})
    loop = cfg.get('train_cfg') or {}
    length = loop.get('max_epochs' if hook.get('by_epoch', True) else 'max_iters')
    interval = hook.get('interval', -1)
    if not isinstance(interval, int) or interval <= 0 or length is None:
        written = 1  # the last
    else:
        last = hook.get('save_last', True) and length % interval
        written = length // interval + bool(last)
    most = hook.get('max_keep_ckpts', -1)
    kept = min(written, most) if isinstance(most, int) and most > 0 else written
    best = hook.get('save_best')
    return max(1, kept) + (len(best) if isinstance(best, (list, tuple)) else bool(best))


def _moments(optimizer: ConfigMap) -> int:
    """How many numbers an optimizer keeps for each that it trains."""
    if base_type(optimizer) == 'SGD' and optimizer.get('momentum'):
        return 1
    return _MOMENTS.get(base_type(optimizer), 2)


def _checkpoint(module: nn.Module, moments: int) -> int:
    """Bytes of a file with a module's tensors and its optimizer's."""
    tensors = sum(value.numel() * value.element_size() for value in module.state_dict().values())
    trained = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    return tensors + moments * trained


def _mega(size: float) -> str:
    return f'{size / 1e6:.3g} MB'
