"""The tuner and its parts, and the proxy tasks that make a start without labels."""

from mm_tuning_plugin.paper import backbones, heads
from mm_tuning_plugin import proxies
from mm_tuning_plugin.models.preprocessor import NodeDataPreprocessor
from mm_tuning_plugin.models.embedding_heads import PointEmbedding, PooledEmbedding
from mm_tuning_plugin.models.gather import gather_nodes
from mm_tuning_plugin.losses.node_losses import (
    ExpectedTripletLoss,
    GraphTripletLoss,
    NodeCrossEntropyLoss,
    PrototypeContrastiveLoss,
    SupervisedContrastiveLoss,
)
from mm_tuning_plugin.losses.metric_learning import PMLLoss
from mm_tuning_plugin.paper.segmentor import SummedSoftmaxEncoderDecoder
from mm_tuning_plugin.models.self_supervised import SelfSupervised
from mm_tuning_plugin.models.tuner import MixAndMatchTuner

__all__ = [
    'ExpectedTripletLoss',
    'GraphTripletLoss',
    'MixAndMatchTuner',
    'NodeCrossEntropyLoss',
    'NodeDataPreprocessor',
    'PMLLoss',
    'PointEmbedding',
    'PooledEmbedding',
    'PrototypeContrastiveLoss',
    'SelfSupervised',
    'SummedSoftmaxEncoderDecoder',
    'SupervisedContrastiveLoss',
    'backbones',
    'gather_nodes',
    'heads',
    'proxies',
]
