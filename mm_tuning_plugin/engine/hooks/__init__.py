"""Hooks of stage one, one a file. They observe, warn and write."""

from mm_tuning_plugin.engine.hooks.batch_norm import EstimateBatchNormHook
from mm_tuning_plugin.engine.hooks.finite import FiniteHook
from mm_tuning_plugin.engine.hooks.node_statistics import NodeStatisticsHook
from mm_tuning_plugin.engine.hooks.save_backbone import SaveBackboneHook

__all__ = ['EstimateBatchNormHook', 'FiniteHook', 'NodeStatisticsHook', 'SaveBackboneHook']
