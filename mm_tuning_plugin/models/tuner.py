"""The model of stage one: the user's backbone, an embedding head, a loss."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from mmengine.dist import get_dist_info
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor

from mm_tuning_plugin import functional
from mm_tuning_plugin.checkpoint import LoadReport, load_backbone_checkpoint
from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.functional.embeddings import as_precise, full_precision
from mm_tuning_plugin.models.batch_norm import momentum_override, tracking_norms
from mm_tuning_plugin.models.channel_layout import FIRST, bring_forward, channel_dims, layout_name
from mm_tuning_plugin.models.chunks import embed_in_chunks
from mm_tuning_plugin.models.gather import connected_zero, gather_embeddings, gather_labels
from mm_tuning_plugin.models.outputs import (
    as_maps,
    freeze_unreached,
    level_names,
    needed_divisor,
    padded,
    place_of,
    probe_image,
    probed,
    run_probe,
    training_order,
    unreached_parameters,
)
from mm_tuning_plugin.registry import MODELS
from mm_tuning_plugin.structures import NodeBatch

GROUP = 1 << 32  # the key of a node is label + GROUP * group, so that one gather serves both


@runtime_checkable
class PreparedLoss(Protocol):
    """A loss that prepares from labels alone, as `losses.base.NodeLoss` does."""

    def prepare(self, labels: Tensor, generator: torch.Generator | None) -> Any:
        """Draw, sort or count."""

    def compute(self, embeddings: Tensor, labels: Tensor, prepared: Any) -> Any:
        """Compute the loss."""


@MODELS.register_module()
class MixAndMatchTuner(BaseModel):
    """Tune a backbone: embeddings of one class move together, those of other classes apart.

    Only the backbone is kept after stage one.

    Args:
        backbone: Config of the backbone, the user's own.
        embedding: Config of the embedding head, without ``in_channels``, which one forward pass
            measures.
        criterion: Config of the loss on embeddings. ``channels=None`` is replaced by their width.
        in_index: Levels of the backbone's output that are embedded: those that the user's decode
            head reads. None: all. A head after a neck may read levels that the backbone does not
            have: the last level is read instead.
        seed: Seed of the graphs; the i-th training step draws from (seed, i) on every rank.
        probe_size: (H, W) of the image of that forward pass, pixels.
        checkpoint: Self-supervised weights to start from; None: the backbone's own initialisation.
        min_matched: See `load_backbone_checkpoint`.
        allow_pickle: See `load_backbone_checkpoint`.
        prefix: See `load_backbone_checkpoint`.
        data_preprocessor: Config of the preprocessor.
        chunk_size: Most images in one forward pass of the backbone in training; each chunk is
            recomputed in the backward pass (`embed_in_chunks`). None: the whole batch, once.
        graph_groups: Groups of images, in order over all ranks, which are matched separately: the
            loss is the mean over the groups. 1: one graph over the whole batch.

    Raises:
        UserError: All parameters of the backbone are frozen; it returns no feature maps.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        embedding: dict[str, Any],
        criterion: dict[str, Any],
        in_index: Sequence[int] | None = None,
        seed: int = 0,
        probe_size: Sequence[int] = (64, 64),
        checkpoint: str | None = None,
        min_matched: float = 0.9,
        allow_pickle: bool = False,
        prefix: str | None = None,
        data_preprocessor: dict[str, Any] | None = None,
        chunk_size: int | None = None,
        graph_groups: int = 1,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.backbone = MODELS.build(backbone)
        self.in_index = None if in_index is None else list(in_index)
        self.backbone.train()  # some backbones freeze stages only here
        self._refuse_frozen(backbone)
        channels = self._measure_outputs(probe_image(backbone, self.backbone, probe_size))
        self.embedding = MODELS.build(dict(embedding, in_channels=channels))
        if criterion.get('channels', 0) is None:
            criterion = dict(criterion, channels=self.embedding.out_channels)
        self.criterion = MODELS.build(criterion)
        self.chunk_size = chunk_size
        self.graph_groups = graph_groups
        self.seed = seed
        self.checkpoint = checkpoint
        self.checkpoint_options: dict[str, Any] = dict(
            min_matched=min_matched, allow_pickle=allow_pickle, prefix=prefix
        )
        self.load_report: LoadReport | None = None
        # The number of training steps; a buffer, so that it is saved and resumed with the weights.
        self.register_buffer('step', torch.zeros((), dtype=torch.int64))

    def init_weights(self) -> None:
        """Initialise as mmengine does, then load the self-supervised weights."""
        super().init_weights()
        if self.checkpoint is not None:
            self.load_report = load_backbone_checkpoint(
                self.backbone, self.checkpoint, **self.checkpoint_options
            )

    def forward(self, nodes: NodeBatch, counts: Sequence[int], mode: str = 'tensor') -> Any:
        """Embed nodes.

        Args:
            nodes: The mixed nodes of the batch.
            counts: Number of nodes of each image of the batch.
            mode: 'loss': returns a dict of losses and diagnostics. 'predict': returns for each
                image a dict of ``embeddings`` (P_i, D), without projection, and ``labels`` (P_i,).
                'tensor': returns the embeddings (N, E).
        """
        if mode == 'loss':
            return self._loss(nodes, counts)
        if mode == 'predict':
            return self._predict(nodes, counts)
        return self.embed(nodes)[0]

    def embed(self, nodes: NodeBatch) -> tuple[Tensor, Tensor]:
        """Return embeddings (N, E), and a zero connected to all parameters that they do not use.

        Half precision becomes float32; float64 stays.
        """
        if self.chunk_size is None:
            return self._embed(nodes.images, nodes.points)
        return embed_in_chunks(self._embed, nodes.images, nodes.points, self.chunk_size, self)

    def _embed(self, images: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        images = padded(images, self.divisor)
        outputs = self._outputs(images)
        read = self._select(outputs)
        unread = images.new_zeros(())
        if self.touches_unread:
            # DDP needs a gradient for each parameter, also of outputs that are not read.
            unread = sum((as_precise(output).sum() for output in outputs), unread) * 0.0
        with full_precision(images):
            levels = [as_precise(level) for level in read]
            embeddings = self.embedding(levels, points, tuple(images.shape[-2:]))
        return embeddings, unread

    def _loss(self, nodes: NodeBatch, images: Sequence[int]) -> dict[str, Tensor]:
        keys = nodes.labels
        if self.graph_groups > 1:
            keys = keys + GROUP * self._groups(images).to(keys)
        keys, counts = gather_labels(keys)
        labels, on_host = keys % GROUP, keys.cpu()
        # On the CPU, where graphs are drawn: the same draws on every kind of device.
        generator = torch.Generator().manual_seed(self.seed + 1_000_003 * int(self.step))
        self.step += 1
        members = self._members(on_host // GROUP)
        # What depends on labels alone comes first: after the backbone it would wait for the device.
        prepared = [self._prepare(on_host[own] % GROUP, generator) for own in members]
        embeddings, unread = self.embed(nodes)
        embeddings = gather_embeddings(embeddings, counts)
        with torch.autocast(labels.device.type, enabled=False):
            parts = [
                self._criterion(embeddings[own], labels[own], generator, ready)
                for own, ready in zip(members, prepared)
            ]
        losses = _joined(parts)
        losses['loss'] = losses['loss'] + unread + embeddings.sum() * 0.0
        losses.update(_diagnostics(embeddings.detach(), labels))
        if len(counts) > 1:
            idle = counts.count(0)
            losses['ranks_without_nodes'] = labels.new_full((), idle, dtype=torch.float32)
        return losses

    def _groups(self, images: Sequence[int]) -> Tensor:
        """The group of each node of this rank (N_r,), from the number of nodes of each image."""
        rank, world_size = get_dist_info()
        index = torch.arange(len(images)) + rank * len(images)
        groups: Tensor = index * self.graph_groups // max(1, world_size * len(images))
        return groups.repeat_interleave(torch.tensor(images, dtype=torch.int64))

    def _members(self, groups: Tensor) -> list[Any]:
        """Which nodes each group has: masks (N,), from the group of each node."""
        if self.graph_groups == 1:
            return [slice(None)]
        return [groups == group for group in range(self.graph_groups)]

    def _prepare(self, labels: Tensor, generator: torch.Generator) -> Any:
        """What the loss prepares from the labels (N,) of one group; None: nothing."""
        if not len(labels) or not isinstance(self.criterion, PreparedLoss):
            return None
        return self.criterion.prepare(labels, generator)

    def _criterion(
        self, embeddings: Tensor, labels: Tensor, generator: torch.Generator, prepared: Any
    ) -> dict[str, Tensor]:
        """The loss and diagnostics of one group; a user's loss is not called for an empty group."""
        criterion: Any = self.criterion
        if not len(labels):
            zero = connected_zero(embeddings, criterion)
            return {'loss': zero, 'triplets': labels.new_zeros((), dtype=torch.float32)}
        given = (prepared,) if isinstance(criterion, PreparedLoss) else ()
        return dict(criterion(embeddings, labels, generator, *given))

    def _predict(self, nodes: NodeBatch, counts: Sequence[int]) -> list[dict[str, Tensor]]:
        images = padded(nodes.images, self.divisor)  # whole ones, of any size
        read = self._select(self._outputs(images))
        size = tuple(images.shape[-2:])
        rows = self.embedding.describe(read, nodes.points, size)
        parts = zip(rows.split(list(counts)), nodes.labels.split(list(counts)))
        return [{'embeddings': part, 'labels': labels} for part, labels in parts]

    def _outputs(self, images: Tensor) -> list[Tensor]:
        if not len(images):
            # No node on this rank: blank images connect every parameter to the graph. Two of them,
            # because BatchNorm refuses a single value per channel. Its running statistics do not
            # change.
            images = images.new_zeros((2, *images.shape[1:]))
            with momentum_override(tracking_norms(self.backbone), 0.0):
                outputs = self.backbone(images)
        else:
            outputs = self.backbone(images)
        maps = as_maps(outputs, self.backbone)
        return [maps[i] for i in self.order] if self.backbone.training else maps

    def _select(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """The levels that are read, each (M, C, h, w), without those that only training has."""
        return [bring_forward(outputs[i], self.channel_dims[i]) for i in self.read]

    def _measure_outputs(self, image: Tensor) -> list[int]:
        """Find the backbone's outputs in both modes; return the channels of the levels read.

        Some parameters serve unread outputs only, for example the norms of Swin's levels. Only then
        are whole outputs connected to the loss, which costs more than the loss itself.
        """
        with torch.no_grad():
            outputs = probed(self.backbone, image, training=False)
            kept = as_maps(outputs, self.backbone)
            self.divisor = needed_divisor(self.backbone, image)
            self.channel_dims = channel_dims(self.backbone, image, kept)
        self.level_names, self.num_levels = level_names(outputs, kept), len(kept)
        self.read = self._places()
        with torch.enable_grad():
            given = run_probe(self.backbone, image, training=True)
            self.order = training_order(kept, given, self.backbone)
            read = self._select([given[i] for i in self.order])
            frozen = freeze_unreached(self.backbone, given)
            self.touches_unread = bool(unreached_parameters(self.backbone, read))
        if frozen:
            print_log(
                f'backbone: {len(frozen)} parameters of {type(self.backbone).__name__} do not '
                f'reach an output and stay as they are, for example {frozen[0]}',
                logger='current',
                level=logging.WARNING,
            )
        moved = sorted({layout_name(dim) for dim in self.channel_dims if dim != FIRST})
        if moved:
            print_log(
                f'backbone: {type(self.backbone).__name__} returns {", ".join(moved)}, which '
                'stage one reads as (B, C, H, W)',
                logger='current',
            )
        return [int(level.shape[1]) for level in read]

    def _places(self) -> list[int]:
        """Positions of the levels that ``in_index`` names."""
        count = self.num_levels
        if self.in_index is None:
            return list(range(count))
        found = [place_of(i, self.level_names) for i in self.in_index]
        absent = [i for i, place in zip(self.in_index, found) if place is None]
        if absent:
            # Normal with a neck: in_index counts its outputs. Otherwise a likely mistake.
            print_log(
                f'in_index: {absent} found, expected levels of the {count} outputs of the '
                'backbone; its last output is read instead',
                logger='current',
                level=logging.WARNING,
            )
        return [count - 1 if place is None else place for place in found]

    def _refuse_frozen(self, config: Mapping[str, Any]) -> None:
        parameters = list(self.backbone.parameters())
        if not any(parameter.requires_grad for parameter in parameters):
            stages = config.get('frozen_stages')
            hint = '' if stages is None else f' (frozen_stages={stages})'
            raise UserError(
                'model.backbone',
                f'all {len(parameters)} parameters of {type(self.backbone).__name__} are '
                f'frozen{hint}',
                'tuning needs at least one that trains',
            )


def _joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Combine groups: the mean of each value that all groups have, and the sum of ``triplets``."""
    if len(parts) == 1:
        return parts[0]
    shared = [name for name in parts[0] if all(name in part for part in parts)]
    values = {name: torch.stack([part[name] for part in parts]) for name in shared}
    return {
        name: value.sum() if name == 'triplets' else value.mean() for name, value in values.items()
    }


def _diagnostics(embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What is logged of a batch beside its loss, without waiting for the device."""
    found = {
        'nodes': labels.new_full((), len(labels), dtype=torch.float32),
        'lone_classes': functional.lone_classes(labels).float(),
    }
    if len(labels):
        found['embedding_variance'] = functional.embedding_variance(embeddings)
    return found
