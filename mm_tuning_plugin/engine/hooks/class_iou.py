"""What each class reaches in a validation of stage two, which mmseg only prints."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from mmengine.dist import is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mm_tuning_plugin.atomic_write import write_json

FILE = 'class_iou.json'


class ClassIoUHook(Hook):
    """Writes ``class_iou.json`` after every validation that mmseg's IoUMetric measures.

    It looks at the areas that the metric sums up, and changes nothing: a metric that a project
    made of it is served too, one that gives no areas is left alone.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.areas: list[Tensor] = []

    def before_val(self, runner: Runner) -> None:
        """Listen to the metrics."""
        for metric in runner.val_evaluator.metrics:
            if hasattr(metric, 'intersect_and_union'):
                metric.compute_metrics = self._listening(type(metric).compute_metrics, metric)

    def after_val_epoch(self, runner: Runner, metrics: object = None) -> None:
        """Write the IoU of the classes in percent, null for classes without pixels."""
        if not self.areas or not is_main_process():
            return
        intersect, union = self.areas
        self.areas = []
        names = (runner.val_dataloader.dataset.metainfo or {}).get('classes') or ()
        write_json(
            Path(runner.work_dir) / FILE,
            dict(
                iteration=runner.iter,
                classes=list(names),
                iou=[
                    round(100 * float(hit / area), 2) if area else None
                    for hit, area in zip(intersect, union)
                ],
            ),
        )

    def _listening(self, compute: Callable, metric: BaseMetric) -> Callable:
        @functools.wraps(compute)
        def listen(results: Sequence) -> dict:
            pairs = [item[:2] for item in results if isinstance(item, tuple) and len(item) == 4]
            if pairs and len(pairs) == len(results):
                self.areas = [torch.stack(list(areas)).double().sum(0) for areas in zip(*pairs)]
            return compute(metric, results)

        return listen
