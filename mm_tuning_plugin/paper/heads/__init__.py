"""Decode heads of the paper's own systems, for any mmseg config."""

from mm_tuning_plugin.paper.heads.fcn32 import FCN32sHead
from mm_tuning_plugin.paper.heads.hypercolumn import HypercolumnHead

__all__ = ['FCN32sHead', 'HypercolumnHead']
