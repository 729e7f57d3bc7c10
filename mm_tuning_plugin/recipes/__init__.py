"""Recipes: sets of defaults of ``mix_and_match``, one module each.

Every module of this folder is imported here, so a new recipe is one new file.
"""

from mm_tuning_plugin.discovery import import_modules
from mm_tuning_plugin.recipes.base import register_recipe

__all__ = ['register_recipe']

import_modules(__name__, __path__)
