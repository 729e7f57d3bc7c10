"""Losses and miners of pytorch-metric-learning by name, on the nodes of stage one.

pytorch-metric-learning is an optional dependency.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from mm_tuning_plugin import functional
from mm_tuning_plugin.config_types import TypeName, name_of
from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.losses.base import Diagnostics, NodeLoss
from mm_tuning_plugin.models.gather import connected_zero
from mm_tuning_plugin.registry import MODELS
from mm_tuning_plugin.structures import Triplets

LIBRARY = 'pytorch_metric_learning'
# Modules that are searched for a name; no two of them share one.
MODULES = ('losses', 'miners', 'distances', 'reducers', 'regularizers')
MATCHES = ('graph', 'own')


class Prepared(NamedTuple):
    """Random draws of a step, made before it.

    Attributes:
        seed: Of the library's own draws; None: they are not seeded.
        triplets: Of the graph; None: the loss or a miner pairs the nodes.
    """

    seed: int | None
    triplets: Triplets | None


@MODELS.register_module()
class PMLLoss(NodeLoss):
    """A loss of pytorch-metric-learning on the triplets of the class-wise connected graph.

    Configs nest: ``dict(type='TripletMarginLoss', distance=dict(type='CosineSimilarity'))`` builds
    both, and ``CrossBatchMemory`` takes a ``loss`` and a ``miner``. ``embedding_size`` and
    ``num_classes`` are filled in where a class takes them and the config leaves them out.

    Args:
        loss: Name or config of a loss.
        miner: Name or config of a miner, which chooses the pairs or triplets; None: none.
        match: 'graph': triplets of the graph; 'own': the loss pairs all nodes itself. None:
            'graph' if there is no miner, else 'own'.
        channels: Width of the embeddings.
        num_classes: Number of classes.

    Raises:
        UserError: The library is not installed or has no such class, an argument is wrong, or
            there are both a miner and a graph.

    Examples:
        >>> loss = PMLLoss('ContrastiveLoss', match='own')  # doctest: +SKIP
        >>> loss(embeddings, labels)['loss']  # doctest: +SKIP
    """

    options = ('num_classes', 'channels')

    def __init__(
        self,
        loss: str | Mapping[str, Any],
        miner: str | Mapping[str, Any] | None = None,
        match: str | None = None,
        channels: int | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        if match not in (None, *MATCHES) or (miner is not None and match == 'graph'):
            raise UserError(
                'PMLLoss.match',
                f'{match!r} found{" beside a miner" if miner is not None else ""}',
                f"expected one of {MATCHES}, and no 'graph' beside a miner, because only one of "
                'them matches',
            )
        known = {
            'embedding_size': channels,
            'descriptors_dim': channels,  # the name in P2SGradLoss
            'num_classes': num_classes,
        }
        self.loss = _build('loss', loss, known)
        self.miner = None if miner is None else _build('miner', miner, known)
        self.match = match or ('graph' if miner is None else 'own')

    def prepare(self, labels: Tensor, generator: Generator | None) -> Prepared | None:
        """Draw the graph, and the seed of what the library draws itself; None for one node."""
        if len(labels) < 2:
            return None
        seed = None
        if generator is not None:
            seed = int(torch.randint(2**31, (), generator=generator))
        with torch.random.fork_rng(devices=()):
            graph = self.match == 'graph'
            triplets = functional.graph_triplets(labels, generator=generator) if graph else None
        return Prepared(seed, triplets)

    def compute(
        self, embeddings: Tensor, labels: Tensor, prepared: Any
    ) -> tuple[Tensor, Diagnostics]:
        """Return the loss, and how many pairs or triplets a miner or the graph chose.

        The library draws from torch's global generator, which is seeded here for the time: the
        draws are the same on all ranks.

        Raises:
            UserError: The loss takes no triplets, or returns anything but one number.
        """
        if prepared is None:
            return connected_zero(embeddings, self), {}
        chosen = None if prepared.triplets is None else tuple(prepared.triplets)
        if chosen is not None and not len(chosen[0]):
            return connected_zero(embeddings, self), {'triplets': 0}
        with torch.random.fork_rng(devices=()):
            if prepared.seed is not None:
                torch.manual_seed(prepared.seed)
            if self.miner is not None:
                chosen = self.miner(embeddings, labels)
            loss = self._call(embeddings, labels, chosen)
        # If a miner chooses nothing, some losses return a number that is not in the graph.
        loss = loss + embeddings.sum() * 0
        return loss, {} if chosen is None else {'triplets': _count(chosen)}

    def _call(self, embeddings: Tensor, labels: Tensor, chosen: Any) -> Tensor:
        try:
            value = self.loss(embeddings, labels, chosen)
        except ValueError as error:
            if 'indices_tuple is not supported' not in str(error):
                raise
            raise UserError(
                'PMLLoss.match',
                f'{self.match!r} found, but {type(self.loss).__name__} takes no triplets',
                "expected 'own' and no miner",
            ) from error
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise UserError(
                'PMLLoss.loss',
                f'{type(self.loss).__name__} gives {type(value).__name__}',
                'expected one number: a reducer that reduces',
            )
        return value.reshape(())


def _count(chosen: Sequence[Tensor]) -> int:
    """The number of triplets (three vectors), or of pairs (two vectors each, of two kinds)."""
    return sum(len(i) for i in chosen[::2]) if len(chosen) == 4 else len(chosen[0])


def _build(where: str, config: Any, known: Mapping[str, int | None]) -> nn.Module:
    """Build an object of the library from its name or config, nested ones first."""
    if isinstance(config, str):
        config = {'type': config}
    if not isinstance(config, Mapping) or not name_of(config.get('type')).name:
        raise UserError(
            f'PMLLoss.{where}', f'{config!r} found', 'expected a name or a dict with a `type`'
        )
    kind = _find(where, name_of(config['type']))
    arguments = {
        name: _build(f'{where}.{name}', value, known)
        if isinstance(value, Mapping) and 'type' in value
        else value
        for name, value in config.items()
        if name != 'type'
    }
    asked = inspect.signature(kind.__init__).parameters
    for name, value in known.items():
        if name in asked and value is not None:
            arguments.setdefault(name, value)
    try:
        return kind(**arguments)
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(
            f'PMLLoss.{where}',
            ' '.join(f'{dict(config)} found, which raises {error}'.split()),
            f'expected arguments of {kind.__name__}',
        ) from error


def _find(where: str, wanted: TypeName) -> type[nn.Module]:
    own = wanted.scope.split('.')[0] in ('', LIBRARY)
    name = wanted.name if own else str(wanted)
    try:
        modules = [importlib.import_module(f'{LIBRARY}.{module}') for module in MODULES]
    except ImportError as error:
        raise UserError(
            f'PMLLoss.{where}',
            f'{name} found, but {LIBRARY} cannot be imported ({error})',
            'install it by pip install pytorch-metric-learning',
        ) from error
    for module in modules:
        found = getattr(module, name, None)
        if isinstance(found, type):
            return found
    near = difflib.get_close_matches(name, _names(modules), n=1, cutoff=0.0)[0]
    raise UserError(
        f'PMLLoss.{where}',
        f'{name!r} found',
        f'expected a class of {LIBRARY} (the nearest is {near})',
    )


def _names(modules: Sequence[Any]) -> list[str]:
    return [
        name
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type)
    ]
