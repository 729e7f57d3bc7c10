"""Registered losses of stage one, one module each, over the functions of `functional`."""

from mm_tuning_plugin.losses.metric_learning import PMLLoss
from mm_tuning_plugin.losses.node_losses import (
    ExpectedTripletLoss,
    GraphTripletLoss,
    NodeCrossEntropyLoss,
    PrototypeContrastiveLoss,
    SupervisedContrastiveLoss,
)

__all__ = [
    'ExpectedTripletLoss',
    'GraphTripletLoss',
    'NodeCrossEntropyLoss',
    'PMLLoss',
    'PrototypeContrastiveLoss',
    'SupervisedContrastiveLoss',
]
