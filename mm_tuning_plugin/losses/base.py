"""The base class of losses, and the look-up of losses by their short names."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Union

import torch
from torch import Generator, Tensor, nn

from mm_tuning_plugin.config_types import class_of
from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.models.gather import connected_zero
from mm_tuning_plugin.registry import MODELS, SCOPE

Diagnostics = Mapping[str, Union[Tensor, float]]
# Arguments that depend on the data and the model.
SIZES = ('num_classes', 'channels')


class NodeLoss(nn.Module):
    """A loss on labelled embeddings.

    A subclass writes `compute` and, if it draws, sorts or counts, `prepare`. Register it with
    ``@MODELS.register_module()``.

    Attributes:
        short_names: What ``mix_and_match.loss`` calls this loss: each name with the arguments that
            it fixes.
        options: Arguments that are filled in for a short name: options of ``mix_and_match``, and
            the sizes ``num_classes`` and ``channels`` (the width of the embeddings). The sizes are
            also filled in if a config names the class.
        needs_classifier: Whether `compute` reads embeddings as class scores. The embedding head
            is then a linear layer to the number of classes, without normalisation.
    """

    short_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    options: ClassVar[tuple[str, ...]] = ()
    needs_classifier: ClassVar[bool] = False

    def compute(
        self, embeddings: Tensor, labels: Tensor, prepared: Any
    ) -> tuple[Tensor, Diagnostics]:
        """Compute the loss of at least one node.

        Args:
            embeddings: (N, E) float.
            labels: (N,) int64. There may be a single class, or no class with two nodes.
            prepared: What `prepare` returned, on the device of the labels.

        Returns:
            The loss, a scalar (0 connected to the graph if there is nothing to compare), and
            scalars to log. No name of these may contain "loss": mmengine adds up all that do.
        """
        raise NotImplementedError

    def prepare(self, labels: Tensor, generator: Generator | None) -> Any:
        """Draw, sort or count by label on the host, before the step's work on the device.

        Args:
            labels: (N,) int64 on the CPU, N > 0.
            generator: The only source of randomness, the same on every rank.

        Returns:
            Tensors, also nested in tuples, lists or dicts; they are moved to the device.
        """
        return None

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        generator: Generator | None = None,
        prepared: Any = None,
    ) -> dict[str, Tensor]:
        """Return ``loss`` and diagnostics, all scalars.

        Args:
            embeddings: (N, E) float; N may be 0.
            labels: (N,) int64.
            generator: For `prepare`.
            prepared: What `prepare` returned; None: it is called here.
        """
        if not len(labels):
            zero = connected_zero(embeddings, self)
            return {'loss': zero, 'triplets': _scalar(0, embeddings)}
        if prepared is None:
            prepared = self.prepare(labels.cpu(), generator)
        loss, found = self.compute(embeddings, labels, _moved(prepared, labels.device))
        return {'loss': loss, **{name: _scalar(value, embeddings) for name, value in found.items()}}


class NamedLoss(NamedTuple):
    """The meaning of a short name.

    Attributes:
        loss: The class.
        type: Its registered name, with the scope.
        arguments: Those that the short name fixes.
    """

    loss: type[NodeLoss]
    type: str
    arguments: Mapping[str, Any]


def named_losses() -> dict[str, NamedLoss]:
    """All registered losses that have a short name, by that name.

    Raises:
        UserError: Two losses have the same short name.

    Examples:
        >>> named_losses()['balanced_contrastive'].arguments
        {'balanced': True}
    """
    found: dict[str, NamedLoss] = {}
    for registered, loss in MODELS.module_dict.items():
        if not (isinstance(loss, type) and issubclass(loss, NodeLoss)):
            continue
        # a subclass does not inherit the names of its parent
        for name, arguments in vars(loss).get('short_names', {}).items():
            if name in found:
                raise UserError(
                    'mix_and_match.loss',
                    f'{name!r} is the short name of {registered} and of {found[name].type}',
                    'expected a name of its own for each loss',
                )
            found[name] = NamedLoss(loss, f'{SCOPE}.{registered}', arguments)
    return found


def loss_config(loss: str | Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a loss, with the arguments that it takes from elsewhere.

    Args:
        loss: A short name, or a config, whose own arguments win.
        known: Values of all options and sizes. ``channels=None`` is a width that the tuner
            fills in.

    Examples:
        >>> loss_config('graph_triplet', dict(margin=2.1))
        {'type': 'mm_tuning_plugin.GraphTripletLoss', 'margin': 2.1}
    """
    if isinstance(loss, str):
        named = named_losses()[loss]
        taken = {name: known[name] for name in named.loss.options}
        return {'type': named.type, **named.arguments, **taken}
    taken = {name: known[name] for name in getattr(_class(loss), 'options', ()) if name in SIZES}
    return {**taken, **copy.deepcopy(dict(loss))}


def needs_classifier(loss: str | Mapping[str, Any]) -> bool:
    """Whether a loss, by short name or config, reads embeddings as class scores.

    Examples:
        >>> needs_classifier('cross_entropy'), needs_classifier('graph_triplet')
        (True, False)
    """
    return bool(getattr(_class(loss), 'needs_classifier', False))


def comparable_nodes(labels: Tensor) -> Tensor:
    """How many nodes have another node of their class and a node of another class.

    Args:
        labels: (N,) integers from 0, N > 0.

    Examples:
        >>> import torch
        >>> comparable_nodes(torch.tensor([3, 3, 0]))
        tensor(2)
    """
    members = torch.bincount(labels)[labels]
    return ((members > 1) & (members < len(labels))).sum()


def _class(loss: str | Mapping[str, Any]) -> Any:
    return named_losses()[loss].loss if isinstance(loss, str) else class_of(loss, MODELS)


def _scalar(value: Tensor | float, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().float()
    return like.new_full((), value, dtype=torch.float32)


def _moved(prepared: Any, device: torch.device) -> Any:
    """Nested tensors on another device."""
    if isinstance(prepared, Tensor):
        return prepared.to(device, non_blocking=True)
    if isinstance(prepared, Mapping):
        return {key: _moved(value, device) for key, value in prepared.items()}
    if isinstance(prepared, (tuple, list)):
        items = [_moved(item, device) for item in prepared]
        return type(prepared)(*items) if hasattr(prepared, '_fields') else type(prepared)(items)
    return prepared
