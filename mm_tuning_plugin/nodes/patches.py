"""Patches: labelled squares, each resized to an image of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mm_tuning_plugin.nodes.base import DataFacts, NodeKind, register_node_kind
from mm_tuning_plugin.registry import SCOPE


class Patches(NodeKind):
    """Labelled squares of an image, resized to one side; the paper's nodes.

    The whole map of a patch is pooled to one embedding. Only random flips of the config are kept:
    crops and resizing are the sampler's own.

    Examples:
        >>> Patches().embedding(dict(grid_size=4))
        {'type': 'mm_tuning_plugin.PooledEmbedding', 'grid_size': 4}
    """

    name = 'patches'
    options = (
        'nodes_per_image', 'size_range', 'patch_size', 'background_ratio', 'max_overlap', 'balance',
        'grid_size',
    )  # fmt: skip
    nodes_per_image = 9
    kept_transforms = ('RandomFlip',)
    whole_images = False
    figures = ('side', 'covered', 'outside')

    def transform(self, options: Mapping[str, Any], facts: DataFacts) -> dict[str, Any]:
        """Config of `SamplePatches`."""
        return dict(
            type=f'{SCOPE}.SamplePatches',
            num_patches=options['nodes_per_image'],
            size_range=list(options['size_range']),
            patch_size=options['patch_size'],
            background_index=facts.background_index,
            background_ratio=options['background_ratio'],
            max_overlap=options['max_overlap'],
            balance=options['balance'],
            fill=list(facts.fill),
        )

    def embedding(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Config of `PooledEmbedding`."""
        return dict(type=f'{SCOPE}.PooledEmbedding', grid_size=options['grid_size'])

    def more_nodes(self, options: Mapping[str, Any]) -> str:
        """See `NodeKind.more_nodes`."""
        if options['balance'] == 'pixel':
            return "set mix_and_match.balance='class', or raise nodes_per_image"
        return super().more_nodes(options)


register_node_kind(Patches())
