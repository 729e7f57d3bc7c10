"""What a person is told while both stages run: a line of progress, and what is not working."""

from mm_tuning_plugin.engine.monitor.hook import WatchHook

__all__ = ['WatchHook']
