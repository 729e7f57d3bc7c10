"""What a training step costs, in FLOPs and in seconds.

Counted is one forward and backward pass of one batch of ``train_dataloader``: the matrix products
and convolutions that `torch.utils.flop_counter` knows, a multiply-add as two. Not counted are
element-wise operations, normalisation, the optimizer, data loading and validation. The total of a
stage is its iterations times the FLOPs of a step; `equal_iterations` turns such a total into
iterations of another stage, for the arms that are matched to a tuning.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from mm_tuning_plugin.atomic_write import write_json
from mm_tuning_plugin.benchmark.code import code_digest
from mm_tuning_plugin.benchmark.fingerprints import Fingerprints
from mm_tuning_plugin.datasets.wrappers import random_state
from mm_tuning_plugin.engine.report.versions import device_name

LARGE = 1024  # elements; operations on larger float tensors are counted without computing them
LONG = 5.0  # seconds; the time of a longer step is estimated instead of measured
WORKERS_ONLY = ('prefetch_factor', 'timeout', 'multiprocessing_context')


class StepCost(NamedTuple):
    """What one training step takes.

    Attributes:
        flops: FLOPs of forward and backward on one batch.
        seconds: Time of the same after a warm-up; above `LONG` an estimate from the FLOPs and the
            speed of a convolution.
    """

    flops: int
    seconds: float


def measure_step(cfg: Config, device: str = 'cpu') -> StepCost:
    """Count and time forward and backward on one real batch; random states are restored.

    Args:
        cfg: The config of a stage: ``model`` and ``train_dataloader``.
        device: Of the timing.
    """
    cfg = copy.deepcopy(cfg)
    loader_cfg = cfg['train_dataloader']
    loader_cfg.update(num_workers=0, persistent_workers=False)
    for name in WORKERS_ONLY:
        loader_cfg.pop(name, None)
    scope = cfg.get('default_scope', 'mmseg')
    with random_state(0), DefaultScope.overwrite_default_scope(scope):
        batch = next(iter(Runner.build_dataloader(loader_cfg, seed=0)))
        model = MODELS.build(cfg['model']).to(device).train()

        def step() -> None:
            losses = model(**model.data_preprocessor(copy.deepcopy(batch), True), mode='loss')
            loss, _ = model.parse_losses(losses)
            loss.backward()

        # the innermost mode comes first: operations are counted before they are replaced
        with NotComputed(), FlopCounterMode(display=False) as counter:
            step()
        flops = int(counter.get_total_flops())
        return StepCost(flops, _seconds(step, flops, device))


class NotComputed(TorchDispatchMode):
    """Replace operations on large tensors by zeros of the right shape, to count a step quickly.

    The operations of a step must depend on shapes and labels only, not on values of features.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See torch."""
        kwargs = kwargs or {}
        large = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and _is_large(t)]
        returns = func._schema.returns
        aliased = any(item.alias_info is not None for item in returns)
        if not large or (aliased and not func._schema.is_mutable):
            return func(*args, **kwargs)  # views among them
        if aliased:
            return args[0]  # in place
        on_meta = tree_map_only(Tensor, lambda tensor: tensor.to('meta'), (args, kwargs))
        try:
            made = func(*on_meta[0], **on_meta[1])
        except NotImplementedError:  # the shape of the result depends on values
            return func(*args, **kwargs)
        return tree_map_only(Tensor, lambda t: torch.zeros_like(t, device=large[0].device), made)


def _is_large(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() >= LARGE


def _seconds(step: Callable[[], None], flops: int, device: str) -> float:
    """Time of a step after a warm-up; for a long step an estimate."""
    expected = flops / _speed(device)
    if expected > LONG:
        return expected
    step()
    return _timed(step, device)


def _speed(device: str) -> float:
    """FLOPs per second of a 3x3 convolution, forward and backward."""
    layer = torch.nn.Conv2d(64, 64, 3, padding=1, device=device)
    images = torch.zeros(4, 64, 64, 64, device=device, requires_grad=True)

    def step() -> None:
        layer(images).sum().backward()

    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / _timed(step, device)


def _timed(step: Callable[[], None], device: str) -> float:
    if device != 'cpu':
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device != 'cpu':
        torch.cuda.synchronize()
    return time.perf_counter() - start


class CostBook:
    """Costs of training steps, each measured once and stored on disk.

    FLOPs are stored once for all devices, so that matched schedules do not depend on the machine.
    Seconds are stored for each device.

    Args:
        folder: Holds one JSON file for each step.
        fingerprints: Give the files their names.
    """

    def __init__(self, folder: Path, fingerprints: Fingerprints) -> None:
        self.folder, self.fingerprints = folder, fingerprints
        self._known: dict[str, StepCost] = {}

    def of(self, cfg: Config) -> StepCost:
        """The cost of one training step of a config with ``model`` and ``train_dataloader``."""
        scope = cfg.get('default_scope', 'mmseg')
        key = self.fingerprints.of(scope, code_digest(), cfg['model'], cfg['train_dataloader'])
        if key not in self._known:
            self._known[key] = self._read_or_measure(self.folder / f'{key}.json', cfg)
        return self._known[key]

    def _read_or_measure(self, path: Path, cfg: Config) -> StepCost:
        kept: dict[str, Any] = dict(flops=None, seconds={})
        if path.is_file():
            kept = json.loads(path.read_text(encoding='utf-8'))
        name = device_name()
        if name not in kept['seconds']:
            cost = measure_step(cfg, 'cuda' if torch.cuda.is_available() else 'cpu')
            kept['flops'] = kept['flops'] or cost.flops
            kept['seconds'][name] = cost.seconds
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(path, kept)
        return StepCost(kept['flops'], kept['seconds'][name])


def equal_iterations(flops: float, step_flops: int) -> int:
    """Iterations that cost at least `flops`: rounded up."""
    return int(-(-flops // step_flops))
