"""``init_cfg`` of type ``mm_tuning_plugin.SelfSupervised``: the loader inside any mmseg config.

mmengine calls an initializer *before* the children of a module initialise themselves, and some
backbones draw random values after that. To protect the loaded weights, children are initialised
first and marked as such, and the first forward pass checks that the weights are still there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.model.weight_init import update_init_info
from torch import Tensor, nn

from mm_tuning_plugin.checkpoint import LoadReport, load_backbone_checkpoint
from mm_tuning_plugin.config_types import base_type
from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.registry import WEIGHT_INITIALIZERS

INSTEAD = (
    "expected it as model.init_cfg, beside the backbone (or --ssl-checkpoint of this package's "
    "tools/train.py, or tools/convert_checkpoint.py and init_cfg of type 'Pretrained')"
)
SAMPLES = 64  # values of each tensor that the first forward pass compares


@WEIGHT_INITIALIZERS.register_module()
class SelfSupervised:
    """Load any self-supervised file into the backbone; anything that does not fit is an error.

    Put it on the *model*. There it works for every backbone, also one with its own loader::

        model = dict(type='EncoderDecoder',
                     init_cfg=dict(type='mm_tuning_plugin.SelfSupervised', checkpoint=FILE), ...)

    As ``backbone.init_cfg`` it works for all backbones that leave ``init_cfg`` to mmengine. Three
    backbones of mmseg do not, and a plain run of mmseg then shows no error. ``SwinTransformer`` and
    ``PIDNet`` read ``checkpoint`` from it and load that file themselves, not strictly: unknown
    names are dropped *silently*. If ``init_cfg`` is a list, ``init_cfg=[dict(...)]``, they raise an
    AssertionError instead. ``TIMMBackbone`` with its default ``pretrained=True`` skips every
    ``init_cfg``. `MixAndMatchRunner` finds it in either place and uses its own loader.

    Args:
        checkpoint: The file.
        min_matched: See `load_backbone_checkpoint`.
        allow_pickle: See `load_backbone_checkpoint`.
        prefix: See `load_backbone_checkpoint`.
    """

    def __init__(
        self,
        checkpoint: str,
        min_matched: float = 0.9,
        allow_pickle: bool = False,
        prefix: str | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.options: dict[str, Any] = dict(
            min_matched=min_matched, allow_pickle=allow_pickle, prefix=prefix
        )

    def __call__(self, module: nn.Module) -> LoadReport:
        """Load into `module`, or into its backbone if it is a whole model.

        Raises:
            UserError: The file does not fit, or other weights would overwrite it.
        """
        _refuse_company(module)
        backbone = module
        if isinstance(module, BaseModel):
            backbone = _backbone_of(module)
            _initialise(backbone)
        else:
            for child in module.children():
                _initialise(child)
        report = load_backbone_checkpoint(backbone, self.checkpoint, **self.options)
        print_log(f'start of the backbone:\n{report}', logger='current')
        if hasattr(backbone, '_params_init_info'):  # mmengine's record of initialisations
            update_init_info(backbone, f'SelfSupervised: loaded from {self.checkpoint}')
        missing = set(report.missing)
        _Watch(backbone, self.checkpoint, [n for n in backbone.state_dict() if n not in missing])
        return report


def _refuse_company(module: nn.Module) -> None:
    """Refuse initializers that run after this one and overwrite what it loads."""
    given = getattr(module, 'init_cfg', None)
    others = [given] if isinstance(given, Mapping) else list(given or [])
    kinds = [base_type(item) for item in others]
    if (others and kinds[-1] != 'SelfSupervised') or 'Pretrained' in kinds:
        raise UserError(
            'init_cfg',
            f'{", ".join(kinds)} found for {type(module).__name__}',
            'expected SelfSupervised last and no Pretrained, because what comes later overwrites '
            'the weights',
        )


def _backbone_of(model: nn.Module) -> nn.Module:
    """The backbone of a segmentor.

    Raises:
        UserError: There is none, or its own ``init_cfg`` also names weights.
    """
    kind = type(model).__name__
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, nn.Module):
        raise UserError(
            'model.init_cfg',
            f'SelfSupervised found for {kind}, which has no backbone',
            'expected a model with one',
        )
    given = getattr(backbone, 'init_cfg', None)
    for item in [given] if isinstance(given, Mapping) else given or []:
        if 'checkpoint' in item:
            raise UserError(
                'model.init_cfg',
                f'SelfSupervised found for {kind}, whose backbone is to start from '
                f'{item["checkpoint"]} as well',
                'expected one of the two',
            )
    return backbone


def _initialise(module: Any) -> None:
    """Initialise a child module now, and mark it, so that mmengine does not do it later."""
    if hasattr(module, 'init_weights'):
        if not getattr(module, 'is_init', False):
            module.init_weights()
        module.is_init = True


class _Watch:
    """Check at the first forward pass that the weights are those that were loaded.

    A backbone may draw random values after its initializers (mmpretrain's vision transformers draw
    their position embeddings). If a state dict is loaded later (resume, ``load_from``), nothing is
    checked.

    Args:
        backbone: Watched until its first forward pass.
        path: Where its weights came from, for the message.
        names: Tensors to watch.
    """

    def __init__(self, backbone: nn.Module, path: str, names: list[str]) -> None:
        self.path = path
        self.samples = dict(_samples(backbone, names))
        self.handles = (
            backbone.register_forward_pre_hook(self.check),
            backbone._register_load_state_dict_pre_hook(self.end),
        )

    def end(self, *_: Any) -> None:
        """Stop watching."""
        for handle in self.handles:
            handle.remove()

    def check(self, backbone: nn.Module, _: Any) -> None:
        """Compare, once.

        Raises:
            UserError: Weights were overwritten after they were loaded.
        """
        self.end()
        for name, now in _samples(backbone, self.samples):
            # approximately: the model may have been cast to half precision meanwhile
            if not torch.allclose(now, self.samples[name], rtol=0.02, atol=1e-3):
                raise UserError(
                    self.path,
                    f'{type(backbone).__name__} has overwritten {name} after it was loaded by '
                    'init_cfg of type SelfSupervised',
                    INSTEAD,
                )


def _samples(module: nn.Module, names: Any) -> Iterator[tuple[str, Tensor]]:
    """Up to `SAMPLES` evenly spaced values of each named floating-point tensor, on the CPU."""
    state = module.state_dict()
    for name in names:
        tensor = state.get(name)
        if isinstance(tensor, Tensor) and tensor.is_floating_point():
            flat = tensor.detach().flatten()
            step = max(1, flat.numel() // SAMPLES)
            yield name, flat[::step].to('cpu', torch.float32, copy=True)  # no view
