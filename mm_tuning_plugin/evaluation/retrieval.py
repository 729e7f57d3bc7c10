"""Node retrieval: does a node's nearest neighbour have its class?"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from mm_tuning_plugin.functional import recall_at_k
from mm_tuning_plugin.registry import METRICS


@METRICS.register_module()
class NodeRetrievalMetric(BaseMetric):
    """Recall@k of the query nodes among the gallery nodes, on unprojected backbone features.

    One result an image, with all its nodes in it: mmengine cuts the results of a validation to
    the number of images. Where either side has no node, nothing is reported but a warning.

    Args:
        topk: The values of k.
        collect_device: See mmengine.
        prefix: Of the metric's names.

    Attributes:
        keep_nodes: Whether the main rank keeps the nodes measured last, for `take_nodes`.
    """

    default_prefix = 'retrieval'

    def __init__(
        self, topk: Sequence[int] = (1, 5), collect_device: str = 'cpu', prefix: str | None = None
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.topk = tuple(topk)
        self.keep_nodes = False
        self._nodes: list[dict] = []

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the nodes of each image on the CPU."""
        for role, sample in zip(data_batch['meta']['role'], data_samples):
            nodes = {key: value.detach().cpu() for key, value in sample.items()}
            self.results.append(dict(role=role, **nodes))

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Return recall@k for each k that the gallery can answer."""
        if self.keep_nodes:
            self._nodes = results
        gallery, gallery_labels = _join(results, 'gallery')
        queries, query_labels = _join(results, 'query')
        if not len(gallery) or not len(queries):
            print_log(
                f'node retrieval: {len(queries)} query and {len(gallery)} gallery nodes found, '
                'expected some of each; nothing is measured',
                logger='current',
                level=logging.WARNING,
            )
            return {}
        return {
            f'recall@{k}': float(recall_at_k(queries, query_labels, gallery, gallery_labels, k))
            for k in self.topk
            if k <= len(gallery)
        }

    def take_nodes(self) -> list[dict]:
        """Hand out the nodes of all images that were measured last, once, in their order.

        Returns:
            Of each image ``role``, ``embeddings`` (P, D), ``labels`` (P,); of another rank than the
            main one, or without ``keep_nodes``, none.
        """
        nodes, self._nodes = self._nodes, []
        return nodes


def _join(results: list[dict], role: str) -> tuple[torch.Tensor, torch.Tensor]:
    chosen = [result for result in results if result['role'] == role]
    if not chosen:
        return torch.empty(0, 1), torch.empty(0, dtype=torch.int64)
    return (
        torch.cat([result['embeddings'] for result in chosen]),
        torch.cat([result['labels'] for result in chosen]),
    )
