"""Node samplers as a user writes and registers them."""

import numpy as np
import torch

from mm_tuning_plugin.datasets import SamplePatches, SamplePoints
from mm_tuning_plugin.registry import TRANSFORMS


@TRANSFORMS.register_module()
class OwnPatches(SamplePatches):
    """A sampler of a user's; without `told` it does not say where its patches lie."""

    def __init__(self, num_patches, told, **options):
        super().__init__(num_patches, (10, 40), 32, **options)
        self.told = told

    def transform(self, results):
        results = super().transform(results)
        if not self.told:
            results.pop('node_boxes')
        return results


@TRANSFORMS.register_module()
class OwnCrops(SamplePoints):
    """A sampler of a user's whose points are on parts of the image, in another order."""

    def transform(self, results):
        results = super().transform(results)
        side = results['img'].shape[0] // 2
        _, y, x = results['node_points'].unbind(1)
        image = results['img'][: 2 * side, : 2 * side]
        results['node_images'] = np.stack([image[side:], image[:side]])
        results['node_points'] = torch.stack([(y < side).long(), y % side, x], dim=1)
        return results
