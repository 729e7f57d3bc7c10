"""The tuner and its parts."""

from importlib import import_module
from typing import Any

from mm_tuning_plugin.models.embedding_heads import PointEmbedding, PooledEmbedding
from mm_tuning_plugin.models.gather import gather_nodes
from mm_tuning_plugin.models.preprocessor import NodeDataPreprocessor
from mm_tuning_plugin.models.self_supervised import SelfSupervised
from mm_tuning_plugin.models.tuner import MixAndMatchTuner
from mm_tuning_plugin.registry import MODELS

__all__ = [
    'MixAndMatchTuner',
    'NodeDataPreprocessor',
    'PointEmbedding',
    'PooledEmbedding',
    'SelfSupervised',
    'gather_nodes',
]

# Earlier versions had these names here, and configs in mmengine's new style import them.
MOVED_CLASSES = (
    'ExpectedTripletLoss', 'GraphTripletLoss', 'NodeCrossEntropyLoss', 'PMLLoss',
    'PrototypeContrastiveLoss', 'SummedSoftmaxEncoderDecoder', 'SupervisedContrastiveLoss',
)  # fmt: skip
MOVED_PACKAGES = {'backbones': 'paper.backbones', 'heads': 'paper.heads', 'proxies': 'proxies'}


def __getattr__(name: str) -> Any:
    if name in MOVED_CLASSES:
        return MODELS.get(name)
    if name in MOVED_PACKAGES:
        return import_module(f'mm_tuning_plugin.{MOVED_PACKAGES[name]}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
