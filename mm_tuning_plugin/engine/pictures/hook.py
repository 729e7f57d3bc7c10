"""The hook that draws what stage one does: nodes, embeddings, neighbours, classes.

It only looks. The random states that it finds it leaves, the model stays in its mode, and a picture
that fails is a line in the log.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mm_tuning_plugin import visualization
from mm_tuning_plugin.config_types import ConfigMap, PlainConfig
from mm_tuning_plugin.engine.common.messages import warn
from mm_tuning_plugin.engine.common.models import unwrap
from mm_tuning_plugin.engine.config.options import PICTURES, PICTURES_OF_RETRIEVAL
from mm_tuning_plugin.engine.pictures.snapshots import (
    Snapshot,
    load_snapshot,
    save_snapshot,
    take_snapshot,
)
from mm_tuning_plugin.engine.pictures.sources import batch_sheet, node_tiles
from mm_tuning_plugin.engine.resume import rng_states
from mm_tuning_plugin.errors import UserError
from mm_tuning_plugin.evaluation import NodeRetrievalMetric
from mm_tuning_plugin.extras import missing_packages
from mm_tuning_plugin.models.module_modes import keep_modes
from mm_tuning_plugin.nodes.base import node_kind
from mm_tuning_plugin.registry import HOOKS

PICTURES_DIR = 'pictures'
BEFORE = 'before_tuning.npz'
TITLES = 'before tuning', 'after tuning'


@HOOKS.register_module()
class PicturesHook(Hook):
    """Draw pictures before some iterations and at the end of stage one.

    They go to mmengine's visualizer, and to ``<kind>_<iteration>.png`` in ``pictures`` of the
    stage's work_dir: ``mosaic`` (the batch that comes next: its images with their nodes, and
    these by class), ``embedding`` and ``tsne`` (the same nodes before tuning and now),
    ``gallery`` (queries and their nearest neighbours), ``similarity`` (of classes). All but the
    first show the nodes of node retrieval, as the validation of that iteration embedded them, or
    embedded here without one. The embeddings before tuning are stored with the pictures, so a
    resumed run still compares with them.

    Args:
        pictures: Of these names.
        class_names: Names of the K classes.
        nodes: Name of the kind of node.
        interval: Iterations between pictures. None: the batch before the first one, and all others
            at the end.
    """

    priority = (
        'LOW'  # listed after SaveBackboneHook, so the backbone is written before they are drawn
    )

    def __init__(
        self,
        pictures: Sequence[str],
        class_names: Sequence[str],
        nodes: str = 'points',
        interval: int | None = None,
    ) -> None:
        self.pictures = list(pictures)
        self.of_retrieval = any(kind in PICTURES_OF_RETRIEVAL for kind in pictures)
        self.class_names = list(class_names)
        self.dense = node_kind(nodes).whole_images
        self.interval = interval
        self.before: Snapshot | None = None
        self.now: tuple[int, Snapshot] | None = None  # an iteration, and its measurements

    def before_run(self, runner: Runner) -> None:
        """Ask for the nodes of validations."""
        if self.of_retrieval:
            _retrieval_metric(runner).keep_nodes = True

    def before_train(self, runner: Runner) -> None:
        """Clear pictures of an earlier run away, or take up what an interrupted one kept."""
        if not is_main_process():
            return
        if missing_packages('report'):
            warn("pictures: none are drawn; pip install 'mm_tuning_plugin[report]'")
            self.pictures = []
        kept = self._folder(runner) / BEFORE
        if runner.iter == 0:
            left = [self._folder(runner).glob(f'{kind}_*.png') for kind in PICTURES]
            for path in chain(*left, [] if self.before else [kept]):
                path.unlink(missing_ok=True)
        elif self.of_retrieval:
            with _noted('what was embedded before tuning is not known'):
                self.before = load_snapshot(kept)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Draw if it is due after the iterations so far."""
        if is_main_process() and self._due(runner.iter):
            self._draw(runner, data_batch)

    def after_train(self, runner: Runner) -> None:
        """Draw at the end; no batch comes any more, so there is no mosaic."""
        if is_main_process():
            self._draw(runner, None)

    def after_val_epoch(self, runner: Runner, metrics: ConfigMap | None = None) -> None:
        """Take over the nodes that the validation has embedded."""
        if not is_main_process() or not self.of_retrieval:
            return
        nodes = _retrieval_metric(runner).take_nodes()
        wanted = self._due(runner.iter) or runner.iter == runner.max_iters
        if nodes and wanted:
            with _noted(f'nodes of iteration {runner.iter} cannot be shown'):
                recall = (metrics or {}).get('retrieval/recall@1')
                self._keep(runner, take_snapshot(nodes, len(self.class_names), recall))

    def _due(self, iteration: int) -> bool:
        return iteration == 0 or (self.interval is not None and iteration % self.interval == 0)

    def _folder(self, runner: Runner) -> Path:
        return Path(runner.work_dir, PICTURES_DIR)

    def _keep(self, runner: Runner, snapshot: Snapshot) -> None:
        """Remember a snapshot; that of the beginning also over an interruption."""
        self.now = runner.iter, snapshot
        if runner.iter == 0:
            self.before = snapshot
            save_snapshot(self._folder(runner) / BEFORE, snapshot)

    def _draw(self, runner: Runner, batch: ConfigMap) -> None:
        """Draw all that is due; the run's random states are afterwards what they were."""
        begun, done = time.monotonic(), []
        states = rng_states.capture(), rng_states.capture_device()
        try:
            if self.of_retrieval and (self.now is None or self.now[0] != runner.iter):
                with _noted(f'nodes of iteration {runner.iter} cannot be shown'):
                    nodes = embed_nodes(unwrap(runner.model), runner.val_loop.dataloader.dataset)
                    self._keep(runner, take_snapshot(nodes, len(self.class_names)))
            measured = runner.iter > 0 and self.now is not None and self.now[0] == runner.iter
            for kind in self.pictures:
                if not (measured if kind in PICTURES_OF_RETRIEVAL else batch is not None):
                    continue  # nothing to draw
                with _noted(f'{kind} of iteration {runner.iter} is not drawn'):
                    picture = self._picture(runner, kind, batch)
                    path = self._folder(runner) / f'{kind}_{runner.iter}.png'
                    visualization.save_image(path, picture)
                    done.append(kind)
                    with _noted(f'{kind} of iteration {runner.iter} did not reach the visualizer'):
                        runner.visualizer.add_image(kind, picture, step=runner.iter)
        finally:
            rng_states.restore(states[0])
            rng_states.restore_device(states[1])
        if done:
            runner.logger.info(
                f'pictures of iteration {runner.iter}: {", ".join(done)} in '
                f'{time.monotonic() - begun:.1f} s, in {self._folder(runner)}'
            )

    def _picture(self, runner: Runner, kind: str, batch: ConfigMap) -> np.ndarray:
        metainfo = runner.train_dataloader.dataset.metainfo
        looks = self.class_names, visualization.dataset_palette(metainfo, len(self.class_names))
        if kind == 'mosaic':
            return batch_sheet(runner, batch, self.dense, *looks)
        snapshots = self._snapshots(runner)
        if kind == 'gallery':
            return self._gallery(runner, snapshots, *looks)
        if kind == 'similarity':
            matrices = {title: shot.similarity for title, shot in snapshots.items()}
            return visualization.similarity_map(matrices, *looks)
        if len(snapshots) < 2:
            missing = str(self._folder(runner) / BEFORE)
            raise UserError(missing, 'not found', 'a run that starts over writes it again')
        before, after = snapshots.values()
        return visualization.embedding_map(
            before.embeddings,
            after.embeddings,
            after.labels,
            *looks,
            method='tsne' if kind == 'tsne' else 'pca',
            titles=tuple(snapshots),
            scores=(before.recall, after.recall),
        )

    def _snapshots(self, runner: Runner) -> dict[str, Snapshot]:
        """Return the embeddings before tuning, if known, and now, by title."""
        now = self.now[1]
        last = runner.iter == runner.max_iters
        titles = TITLES[0], TITLES[1] if last else f'after {runner.iter} iterations'
        if self.before is None:
            return {titles[1]: now}
        if not now.same_nodes(self.before):
            raise UserError(BEFORE, 'other nodes than those of this run', 'start the run over')
        return {titles[0]: self.before, titles[1]: now}

    def _gallery(
        self,
        runner: Runner,
        snapshots: Mapping[str, Snapshot],
        names: list[str],
        palette: np.ndarray,
    ) -> np.ndarray:
        """The gallery of the queries, which are the same at every moment."""
        now, dataset = self.now[1], runner.val_loop.dataloader.dataset
        wanted = [now.queries, *(shot.neighbours.reshape(-1, 2) for shot in snapshots.values())]
        tiles = node_tiles(dataset, np.concatenate(wanted), self.dense)
        queries, *found = np.split(tiles, np.cumsum([len(part) for part in wanted])[:-1])
        panels = {
            title: visualization.Neighbours(
                part.reshape(*shot.neighbour_labels.shape, *part.shape[1:]), shot.neighbour_labels
            )
            for (title, shot), part in zip(snapshots.items(), found)
        }
        return visualization.retrieval_gallery(
            queries,
            now.query_labels,
            panels,
            names,
            palette,
            scores={title: shot.recall for title, shot in snapshots.items()},
            marked=self.dense,
        )


@torch.no_grad()
def embed_nodes(model: torch.nn.Module, dataset: BaseDataset) -> list[PlainConfig]:
    """Embed the nodes of all images of a `RetrievalDataset`, in this process.

    Args:
        model: The tuner; it is in the mode it was in when this returns.
        dataset: The data set.

    Returns:
        Of each image ``role``, ``embeddings`` (P, D) and ``labels`` (P,), on the CPU.
    """
    nodes = []
    with keep_modes(model):
        model.eval()
        for index in range(len(dataset)):
            sample = dataset[index]
            row = model.val_step(pseudo_collate([sample]))[0]
            found = {key: value.detach().cpu() for key, value in row.items()}
            nodes.append(dict(role=sample['meta']['role'], **found))
    return nodes


@contextmanager
def _noted(what: str) -> Iterator[None]:
    """Make one line of whatever fails inside: training does not depend on a picture."""
    try:
        yield
    except Exception as error:  # data sets, drawing and the user's own backends can raise anything
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())
        warn(f'pictures: {what}: {reason}')


def _retrieval_metric(runner: Runner) -> NodeRetrievalMetric:
    metrics = runner.val_loop.evaluator.metrics
    return next(metric for metric in metrics if isinstance(metric, NodeRetrievalMetric))
