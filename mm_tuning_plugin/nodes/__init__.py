"""The kinds of nodes: one module each.

Every module of this folder is imported here, so a new kind is one new file.
"""

from mm_tuning_plugin.discovery import import_modules
from mm_tuning_plugin.nodes.base import NodeKind, register_node_kind

__all__ = ['NodeKind', 'register_node_kind']

import_modules(__name__, __path__)
