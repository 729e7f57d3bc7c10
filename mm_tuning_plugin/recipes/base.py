"""What a recipe is, and how one becomes known by its name."""

from __future__ import annotations

from typing import Any, NamedTuple

from mm_tuning_plugin.errors import UserError


class Recipe(NamedTuple):
    """A set of defaults.

    Attributes:
        name: What the option ``recipe`` calls it.
        summary: What it is for, in one line.
        defaults: Options and their values, as in ``mix_and_match``. Other options keep their own
            defaults; what a config gives overrides both.
    """

    name: str
    summary: str
    defaults: dict[str, Any]


_recipes: dict[str, Recipe] = {}


def register_recipe(name: str, summary: str, **defaults: Any) -> Recipe:
    """Make a recipe known by its name; see `Recipe`.

    Out of tree, call it in a module that the config names in ``custom_imports``. Registering the
    same recipe twice is allowed, so that a module may be imported twice.

    Raises:
        UserError: Another recipe has that name.
    """
    recipe = Recipe(name, summary, defaults)
    if _recipes.setdefault(name, recipe) != recipe:
        raise UserError(
            'mix_and_match.recipe',
            f'two recipes are named {name!r}',
            'expected a name of its own for each recipe',
        )
    return recipe


def recipes() -> dict[str, Recipe]:
    """All recipes by name.

    Examples:
        >>> recipes()['paper'].defaults['nodes']
        'patches'
    """
    return dict(_recipes)
