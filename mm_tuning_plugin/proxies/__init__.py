"""Self-supervised proxy tasks that train a backbone without labels."""

from mm_tuning_plugin.proxies.colorization import ColorizationDataPreprocessor, ColorizationModel
from mm_tuning_plugin.proxies.hue_chroma import HueChromaDataPreprocessor, HueChromaModel
from mm_tuning_plugin.proxies.jigsaw import JigsawDataPreprocessor, JigsawModel
from mm_tuning_plugin.proxies.rotation import RotationDataPreprocessor, RotationModel

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
