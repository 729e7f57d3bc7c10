"""Measuring embeddings of nodes, and what predictions cover on each image."""

from mm_tuning_plugin.evaluation.image_iou import ImageIoUMetric
from mm_tuning_plugin.evaluation.retrieval import NodeRetrievalMetric

__all__ = ['ImageIoUMetric', 'NodeRetrievalMetric']
