"""Monitoring of both stages: a progress line, and warnings if something does not work."""

from mm_tuning_plugin.engine.monitor.hook import WatchHook

__all__ = ['WatchHook']
