"""Recall@1 of a backbone, by the same protocol for all arms and recipes.

Queries are square patches of validation images; the gallery are patches of the training images of
the fold. Images are evenly spaced, and patches are drawn class by class
(`functional.sample_patches`), the same for every backbone. The feature of a patch is the last level
of the backbone, averaged over the patch. Recall@1 is the share of queries whose nearest neighbour
by cosine similarity has the same class.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch import Tensor

from mm_tuning_plugin.datasets.wrappers import random_state
from mm_tuning_plugin.engine import derive_tuning_config
from mm_tuning_plugin.evaluation import NodeRetrievalMetric


@torch.no_grad()
def measure_recall(
    cfg: Config,
    gallery: Mapping[str, Any],
    queries: Mapping[str, Any],
    protocol: Mapping[str, Any],
    weights: Mapping[str, Tensor],
) -> float | None:
    """Measure recall@1.

    Args:
        cfg: Config of fine-tuning, for its backbone and normalisation.
        gallery: Config of the data set of all training images.
        queries: Config of the data set of the validation images.
        protocol: Maximum ``images`` of each set (0: do not measure), ``patches`` of an image,
            ``size_range`` and ``patch_size`` as in ``mix_and_match``.
        weights: The backbone's state dict.

    Returns:
        Recall@1 in [0, 1]; None without queries or without a gallery.
    """
    if not protocol['images']:
        return None
    derived = derive_tuning_config(_as_retrieval(cfg, gallery, queries, protocol))
    if derived['val_dataloader'] is None:  # validation images have no labels
        return None
    derived['model']['in_index'] = [-1]
    metric = NodeRetrievalMetric(topk=(1,))
    with random_state(0), DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(derived['model'])
        model.backbone.load_state_dict(dict(weights))
        model.to('cuda' if torch.cuda.is_available() else 'cpu').eval()
        for batch in Runner.build_dataloader(derived['val_dataloader'], seed=0):
            metric.process(batch, model.val_step(batch))
    found = metric.compute_metrics(metric.results)
    return round(found['recall@1'], 6) if found else None


def _as_retrieval(
    cfg: Config,
    gallery: Mapping[str, Any],
    queries: Mapping[str, Any],
    protocol: Mapping[str, Any],
) -> Config:
    """A config whose tuning measures retrieval by this protocol."""
    cfg = copy.deepcopy(cfg)
    cfg['train_dataloader']['dataset'] = copy.deepcopy(dict(gallery))
    cfg['val_dataloader'] = dict(num_workers=0, dataset=copy.deepcopy(dict(queries)))
    cfg['mix_and_match'] = dict(
        nodes='patches',
        balance='class',
        nodes_per_image=protocol['patches'],
        size_range=protocol['size_range'],
        patch_size=protocol['patch_size'],
        retrieval_images=protocol['images'],
        grid_size=1,
        projection_channels=0,
    )
    return cfg
