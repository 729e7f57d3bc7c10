"""The method itself, on tensors: no OpenMMLab package, no files, no global random state.

mix: `sample_patches`, `sample_points`, `crop_and_resize`; match: `class_connected_graph`,
`graph_triplets`; losses: `triplet_margin_loss`, `expected_triplet_loss`,
`supervised_contrastive_loss`, `prototype_loss`, `active_triplet_share`; metrics: `recall_at_k`,
`mean_average_precision_at_r`, `intra_inter_distance`, `embedding_variance`, `lone_classes`; points
for a head: `sample_labelled_pixels`. The named tuples that they exchange are in
`mm_tuning_plugin.structures` and exported here as well.
"""

from ..structures import LabelledPoints, NodeBatch, PatchBoxes, Triplets
from .contrastive_losses import prototype_loss, supervised_contrastive_loss
from .crops import crop_and_resize
from .graph import class_connected_graph, graph_triplets
from .metrics import (
    ClassDistances,
    embedding_variance,
    intra_inter_distance,
    lone_classes,
    mean_average_precision_at_r,
    recall_at_k,
)
from .patches import sample_patches
from .points import sample_labelled_pixels, sample_points
from .triplet_losses import active_triplet_share, expected_triplet_loss, triplet_margin_loss

__all__ = [
    'ClassDistances',
    'LabelledPoints',
    'NodeBatch',
    'PatchBoxes',
    'Triplets',
    'active_triplet_share',
    'class_connected_graph',
    'crop_and_resize',
    'embedding_variance',
    'expected_triplet_loss',
    'graph_triplets',
    'intra_inter_distance',
    'lone_classes',
    'mean_average_precision_at_r',
    'prototype_loss',
    'recall_at_k',
    'sample_labelled_pixels',
    'sample_patches',
    'sample_points',
    'supervised_contrastive_loss',
    'triplet_margin_loss',
]
