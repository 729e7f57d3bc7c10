"""Drawing labelled nodes from the user's own data sets."""

from mm_tuning_plugin.datasets.cached import Cached, cache_loading
from mm_tuning_plugin.datasets.fit_to_labels import FitToLabels
from mm_tuning_plugin.datasets.label_transforms import CheckLabels, MapLabels
from mm_tuning_plugin.datasets.large_images import CutLargeImage
from mm_tuning_plugin.datasets.samplers import SeededIndex, SeededInfiniteSampler
from mm_tuning_plugin.datasets.transforms import (
    GreyImage,
    PackNodeInputs,
    SamplePatches,
    SamplePoints,
)
from mm_tuning_plugin.datasets.unlabelled_folder import UnlabelledFolder
from mm_tuning_plugin.datasets.wrappers import RetrievalDataset, SeededDataset

__all__ = [
    'Cached',
    'CheckLabels',
    'CutLargeImage',
    'FitToLabels',
    'GreyImage',
    'MapLabels',
    'PackNodeInputs',
    'RetrievalDataset',
    'SamplePatches',
    'SamplePoints',
    'SeededDataset',
    'SeededIndex',
    'SeededInfiniteSampler',
    'UnlabelledFolder',
    'cache_loading',
]
