"""The tuner and its parts."""

from mm_tuning_plugin.models.embedding_heads import PointEmbedding, PooledEmbedding
from mm_tuning_plugin.models.gather import gather_nodes
from mm_tuning_plugin.models.preprocessor import NodeDataPreprocessor
from mm_tuning_plugin.models.self_supervised import SelfSupervised
from mm_tuning_plugin.models.tuner import MixAndMatchTuner

__all__ = [
    'MixAndMatchTuner',
    'NodeDataPreprocessor',
    'PointEmbedding',
    'PooledEmbedding',
    'SelfSupervised',
    'gather_nodes',
]
