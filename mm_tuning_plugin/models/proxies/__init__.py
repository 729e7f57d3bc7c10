"""Self-supervised proxy tasks that train a backbone without labels."""

from mm_tuning_plugin.models.proxies.colorization import (
    ColorizationDataPreprocessor,
    ColorizationModel,
)
from mm_tuning_plugin.models.proxies.jigsaw import JigsawDataPreprocessor, JigsawModel
from mm_tuning_plugin.models.proxies.rotation import RotationDataPreprocessor, RotationModel

__all__ = [
    'ColorizationDataPreprocessor',
    'ColorizationModel',
    'JigsawDataPreprocessor',
    'JigsawModel',
    'RotationDataPreprocessor',
    'RotationModel',
]
