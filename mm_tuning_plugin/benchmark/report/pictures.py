"""Pictures of finished runs: nodes, embeddings before and after, predictions of the arms."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import Runner

from mm_tuning_plugin import visualization
from mm_tuning_plugin.checkpoint import load_backbone_strict
from mm_tuning_plugin.checkpoint.io.read import read_content
from mm_tuning_plugin.datasets.label_values import map_labels, usable_label_table
from mm_tuning_plugin.datasets.samplers import SeededIndex
from mm_tuning_plugin.datasets.wrappers import random_state
from mm_tuning_plugin.engine.config.derive import derive_tuning_config
from mm_tuning_plugin.engine.config.user_config import UserConfig, read_user_config
from mm_tuning_plugin.engine.pictures.sources import as_rgb, image_as_rgb, with_sources

Looks = tuple[list[str], Any]
"""Class names and palette."""


def class_looks(cfg: Mapping[str, Any]) -> Looks:
    """Class names of a config, and the palette of its data set, or one made for them."""
    names = read_user_config(cfg).class_names
    with DefaultScope.overwrite_default_scope('mmseg'):
        metainfo = DATASETS.build(copy.deepcopy(cfg['train_dataloader']['dataset'])).metainfo
    return names, visualization.dataset_palette(metainfo, len(names))


def draw_mosaic(cfg: Config, path: Path, images: int = 6) -> None:
    """Save the mixed patches of one batch by class, with their boxes on the source images."""
    names, palette = class_looks(cfg)
    patched = copy.deepcopy(cfg)
    options = patched.get('mix_and_match') or {}
    patched['mix_and_match'] = {**options, 'nodes': 'patches', 'balance': 'class'}
    dataset_cfg = with_sources(derive_tuning_config(patched)['train_dataloader']['dataset'])
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = DATASETS.build(dataset_cfg)
        samples = [dataset[SeededIndex(i, (0, i))] for i in range(min(images, len(dataset)))]
    picture = visualization.node_sheet(
        [image_as_rgb(sample['source']['img']) for sample in samples],
        [sample['source']['boxes'].numpy() for sample in samples],
        [sample['labels'].numpy() for sample in samples],
        palette,
        names,
        patches=[as_rgb(sample['inputs']) for sample in samples],
    )
    visualization.save_image(path, picture)


@torch.no_grad()
def draw_embeddings(cfg: Config, tuned: Path, scores: tuple[float, float], path: Path) -> None:
    """Save the map of the validation nodes, embedded by the start and by the tuned backbone.

    Args:
        cfg: The config of the tuned arm.
        tuned: Its ``tuned_backbone.pth``.
        scores: recall@1 before and after.
        path: Where the picture goes.
    """
    names, palette = class_looks(cfg)
    tuning = derive_tuning_config(cfg)
    loader_cfg = copy.deepcopy(tuning['val_dataloader'])
    loader_cfg.update(num_workers=0, persistent_workers=False)
    scope = DefaultScope.overwrite_default_scope('mmseg')
    with scope, random_state(int((cfg.get('randomness') or {}).get('seed') or 0)):
        model = MODELS.build(tuning['model'])
        model.init_weights()
        batches = list(Runner.build_dataloader(loader_cfg, seed=0))
        before, labels = _embed(model, batches)
        load_backbone_strict(model.backbone, tuned)
        after, _ = _embed(model, batches)
    picture = visualization.embedding_map(before, after, labels, names, palette, scores=scores)
    visualization.save_image(path, picture)


@torch.no_grad()
def draw_predictions(
    cfg: Config,
    checkpoints: Mapping[str, Path],
    scores: Mapping[str, float],
    path: Path,
    images: int = 4,
) -> None:
    """Save images of the validation set, their truth, and the prediction of each arm.

    Args:
        cfg: Config of fine-tuning.
        checkpoints: Final checkpoint by arm.
        scores: mIoU by arm, percent.
        path: Where the picture goes.
        images: How many, evenly spaced.
    """
    names, palette = class_looks(cfg)
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = DATASETS.build(copy.deepcopy(cfg['val_dataloader']['dataset']))
        chosen = np.linspace(0, len(dataset) - 1, min(images, len(dataset)), dtype=int)
        samples = [dataset[int(index)] for index in chosen]
        model = MODELS.build(copy.deepcopy(cfg['model'])).eval()
        predictions = {}
        for arm, checkpoint in checkpoints.items():
            # not mmengine's own reader: the original's is refused its own files from torch 2.6 on
            model.load_state_dict(read_content(checkpoint)['state_dict'])
            predictions[arm] = [_predict(model, sample) for sample in samples]
    picture = visualization.prediction_sheet(
        [as_rgb(sample['inputs']) for sample in samples],
        [_truth(sample, read_user_config(cfg)) for sample in samples],
        predictions,
        palette,
        names,
        scores=scores,
    )
    visualization.save_image(path, picture)


def _embed(model: torch.nn.Module, batches: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
    model.eval()
    nodes = [row for batch in batches for row in model.val_step(batch)]
    rows = torch.nn.functional.normalize(torch.cat([row['embeddings'] for row in nodes]))
    return rows.numpy(), torch.cat([row['labels'] for row in nodes]).numpy()


def _truth(sample: dict, facts: UserConfig) -> np.ndarray:
    """Return the classes of the pixels, 255 if the config ignores them."""
    labels = sample['data_samples']
    return map_labels(
        labels.gt_sem_seg.data[0].numpy(),
        usable_label_table(facts.num_classes, facts.ignore_values),
        str(labels.metainfo.get('img_path')),
        facts.ignore_values,
    )


def _predict(model: torch.nn.Module, sample: dict) -> np.ndarray:
    batch = dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']])
    prediction = model.test_step(batch)[0].pred_sem_seg.data[0]
    return prediction.cpu().numpy().astype(np.int64)  # mmseg's threshold of one output gives floats
