"""The recipe of a config that names none: every option at its own default."""

from mm_tuning_plugin.recipes.base import register_recipe

register_recipe('default', 'the defaults')
