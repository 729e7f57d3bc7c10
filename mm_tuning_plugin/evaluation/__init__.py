"""Measuring embeddings of nodes."""

from mm_tuning_plugin.evaluation.retrieval import NodeRetrievalMetric

__all__ = ['NodeRetrievalMetric']
