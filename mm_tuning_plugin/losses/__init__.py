"""The losses of stage one: one module each, over the functions of `functional`.

Every module of this folder is imported here, so a new loss is one new file.
"""

from mm_tuning_plugin.discovery import import_modules
from mm_tuning_plugin.losses.base import NodeLoss

__all__ = ['NodeLoss']

import_modules(__name__, __path__)
