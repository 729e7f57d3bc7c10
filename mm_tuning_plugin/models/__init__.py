"""The tuner and its parts."""

from importlib import import_module
from typing import Any

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

# Where names are that earlier versions had here; configs in mmengine's new style import them.
MOVED = {
    **dict.fromkeys(
        [
            'ExpectedTripletLoss',
            'GraphTripletLoss',
            'NodeCrossEntropyLoss',
            'PMLLoss',
            'PrototypeContrastiveLoss',
            'SupervisedContrastiveLoss',
        ],
        'mm_tuning_plugin.losses',
    ),
    **dict.fromkeys(
        ['SummedSoftmaxEncoderDecoder', 'backbones', 'heads'], 'mm_tuning_plugin.paper'
    ),
}


def __getattr__(name: str) -> Any:
    if name == 'proxies':
        return import_module('mm_tuning_plugin.proxies')
    if name in MOVED:
        return getattr(import_module(MOVED[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
