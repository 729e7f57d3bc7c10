"""Recall@1 of a backbone by one protocol, whatever made it and whatever recipe tunes it.

Queries are square patches of validation images, the gallery those of the fold's training images;
of each, evenly spaced images and on each the same patches, drawn class by class
(`functional.sample_patches`). A patch is described by the backbone's last level, averaged over its
area; recall@1 is the share of queries whose nearest neighbour by cosine has their class.
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
        cfg: Of fine-tuning: backbone and normalisation.
        gallery: Config of the data set of all training images.
        queries: Config of the data set of the validation images.
        protocol: ``images`` of each set at most (0: nothing is measured), ``patches`` of an image,
            ``size_range`` and ``patch_size`` as in ``mix_and_match``.
        weights: The backbone's state dict.

    Returns:
        Recall@1 in [0, 1]; None where there is no node to look up or to find.
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
    """The config whose stage one validates by this protocol."""
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
