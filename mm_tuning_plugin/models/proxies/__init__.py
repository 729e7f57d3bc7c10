"""Self-supervised proxy tasks that train a backbone without labels."""

from mm_tuning_plugin.models.proxies.colorization import (
    ColorizationDataPreprocessor,
    ColorizationModel,
)
from mm_tuning_plugin.models.proxies.hue_chroma import HueChromaDataPreprocessor, HueChromaModel
from mm_tuning_plugin.models.proxies.jigsaw import JigsawDataPreprocessor, JigsawModel
from mm_tuning_plugin.models.proxies.rotation import RotationDataPreprocessor, RotationModel

__all__ = [
    'ColorizationDataPreprocessor',
    'ColorizationModel',
    'HueChromaDataPreprocessor',
    'HueChromaModel',
    'JigsawDataPreprocessor',
    'JigsawModel',
    'RotationDataPreprocessor',
    'RotationModel',
]
