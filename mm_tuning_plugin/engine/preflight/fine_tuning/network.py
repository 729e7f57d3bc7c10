"""The user's segmentor, built to be looked at: without its weights, or really where that fails."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping

from mmengine.config import ConfigDict
from mmengine.model import BaseModule, revert_sync_batchnorm
from mmengine.model.weight_init import initialize
from mmengine.registry import MODELS
from torch import nn

from mm_tuning_plugin.config_types import ConfigMap, base_type
from mm_tuning_plugin.engine.config.initial_weights import remove_pretrained
from mm_tuning_plugin.engine.config.meta_build import build_on_meta
from mm_tuning_plugin.engine.preflight.fine_tuning.registered import mistake

PARTS = ('data_preprocessor', 'backbone', 'neck', 'decode_head', 'auxiliary_head')


class Network:
    """A segmentor on the 'meta' device, and a real one for cases of doubt.

    The network on 'meta' may fail where the real one would not: constructors and forward passes
    that read numbers from tensors, and compiled operators. So only errors of the real network are
    reported. It is built only after the one on 'meta' has raised an error.

    Args:
        config: Of the segmentor, without anything that loads weights.
        scope: The config's ``default_scope``, the current one by now.

    Raises:
        UserError: It cannot be built.
    """

    def __init__(self, config: ConfigMap, scope: str) -> None:
        self.config, self.scope = config, scope
        self._real: nn.Module | None = None
        self.normalises_over_ranks = False
        try:
            self.seen = self._trainable(build_on_meta(copy.deepcopy(config), scope))
        except Exception:  # the real one raises it, too, if it is a mistake
            self.seen = self.real()

    def real(self) -> nn.Module:
        """The network with weights, on the CPU.

        Raises:
            UserError: It cannot be built.
        """
        if self._real is None:
            try:
                self._real = self._trainable(MODELS.build(copy.deepcopy(self.config)))
            except Exception as error:  # constructors can raise anything
                raise mistake(*self._place(error), error, MODELS) from error
        return self._real

    def ask(self, question: Callable[[nn.Module], None]) -> None:
        """Ask the network on 'meta'; if it raises, ask the real one.

        Args:
            question: A function that raises if the config is wrong.

        Raises:
            Exception: What the real network raised.
        """
        try:
            question(self.seen)
        except Exception:
            question(self.real())

    def name_of(self, module: nn.Module) -> str:
        """The part of the config that a module was built from, in dotted words; '' if unknown."""
        for root in filter(None, (self.seen, self._real)):
            for name, known in root.named_modules():
                if known is module:
                    first, *rest = name.split('.')
                    several = first in PARTS and rest and rest[0].isdigit()
                    listed = isinstance(self.config.get(first), (list, tuple))
                    return f'{first}.{rest[0]}' if several and listed else first
        return ''

    def _trainable(self, model: nn.Module) -> nn.Module:
        """Prepare for training in one process: synchronised BatchNorm needs ranks."""
        kinds = {type(module).__name__ for module in model.modules()}  # torch's, or mmcv's own
        self.normalises_over_ranks |= 'SyncBatchNorm' in kinds
        return revert_sync_batchnorm(model).train()

    def _place(self, error: Exception) -> tuple[str, str]:
        """Place and type of the part that raises the same when it is built alone."""
        for place, part in _parts(self.config):
            try:
                build_on_meta(copy.deepcopy(part), self.scope)
            except Exception as own:
                if (type(own), str(own)) == (type(error), str(error)):
                    return f'model.{place}', base_type(part)
        return 'model', base_type(self.config)


def without_weights(cfg: ConfigMap) -> ConfigDict:
    """The segmentor of a config as a Runner builds it, but for what loads weights."""
    model = ConfigDict(remove_pretrained(cfg['model']))
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', cfg['data_preprocessor'])
    return model


def initialise(module: nn.Module) -> None:
    """Initialise weights as mmengine's ``init_weights`` does, where a module uses mmengine's.

    Without its record of means, for which there must be weights.

    Raises:
        Exception: An ``init_cfg`` is wrong.
    """
    if getattr(type(module), 'init_weights', None) is not BaseModule.init_weights:
        return
    given = module.init_cfg
    if given:
        initialize(module, [given] if isinstance(given, dict) else list(given))
    for child in module.children():
        initialise(child)


def _parts(config: ConfigMap) -> Iterator[tuple[str, ConfigMap]]:
    for name in PARTS:
        part = config.get(name)
        several = isinstance(part, (list, tuple))
        for i, item in enumerate(part if several else [part]):
            if isinstance(item, Mapping) and 'type' in item:
                yield (f'{name}.{i}' if several else name), item
