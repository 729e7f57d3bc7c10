"""Points: labelled pixels of whole images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mm_tuning_plugin.nodes.base import DataFacts, NodeKind, register_node_kind
from mm_tuning_plugin.registry import SCOPE


class Points(NodeKind):
    """Labelled pixels of the config's own crops, read from the feature maps by interpolation.

    Examples:
        >>> options = dict(nodes_per_image=128, points_per_class=8, border_share=0.0)
        >>> Points().transform(options, DataFacts(None, [0, 0, 0]))['type']
        'mm_tuning_plugin.SamplePoints'
    """

    name = 'points'
    options = ('nodes_per_image', 'points_per_class', 'border_share')
    nodes_per_image = 128
    whole_images = True

    def transform(self, options: Mapping[str, Any], facts: DataFacts) -> dict[str, Any]:
        """Config of `SamplePoints`."""
        return dict(
            type=f'{SCOPE}.SamplePoints',
            points_per_class=options['points_per_class'],
            max_points=options['nodes_per_image'],
            border_share=options['border_share'],
        )

    def embedding(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Config of `PointEmbedding`."""
        return dict(type=f'{SCOPE}.PointEmbedding')

    def more_nodes(self, options: Mapping[str, Any]) -> str:
        """See `NodeKind.more_nodes`."""
        return 'raise mix_and_match.nodes_per_image or points_per_class'


register_node_kind(Points())
