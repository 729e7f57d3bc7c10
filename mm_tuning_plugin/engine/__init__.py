"""The two-stage run: the tuning plan, the runner, the hooks."""

from mm_tuning_plugin.engine.config.derive import derive_tuning_config
from mm_tuning_plugin.engine.config.options import OPTIONS, options_table, resolve_options
from mm_tuning_plugin.engine.hooks.batch_norm import EstimateBatchNormHook
from mm_tuning_plugin.engine.hooks.finite import FiniteHook
from mm_tuning_plugin.engine.hooks.node_statistics import NodeStatisticsHook
from mm_tuning_plugin.engine.hooks.save_backbone import SaveBackboneHook
from mm_tuning_plugin.engine.monitor import WatchHook
from mm_tuning_plugin.engine.pictures.hook import PicturesHook
from mm_tuning_plugin.engine.runner import FineTuningRunner, MixAndMatchRunner

__all__ = [
    'OPTIONS',
    'EstimateBatchNormHook',
    'FineTuningRunner',
    'FiniteHook',
    'MixAndMatchRunner',
    'NodeStatisticsHook',
    'PicturesHook',
    'SaveBackboneHook',
    'WatchHook',
    'derive_tuning_config',
    'options_table',
    'resolve_options',
]
