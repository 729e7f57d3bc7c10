"""A new recipe is one file: its name works in tree and out of tree."""

import pytest
from mistakes import mistake
from new_files import short, two_steps_with

from mm_tuning_plugin.engine import derive_tuning_config
from mm_tuning_plugin.engine.config.options import options_table, resolve_options
from mm_tuning_plugin.recipes import base, register_recipe

CODE = """
from mm_tuning_plugin.recipes import register_recipe

register_recipe('toy', 'small patches', nodes='patches', patch_size=32, loss='expected_triplet')
"""


@pytest.fixture(autouse=True)
def forget_toys(monkeypatch):
    monkeypatch.setattr(base, '_recipes', base.recipes())


@pytest.mark.walk
def test_in_tree(toy_cfg, tmp_path):
    code = CODE.replace('recipes import', 'recipes.base import')
    derived = two_steps_with('recipes/toy.py', code, toy_cfg, tmp_path / 'copy', recipe='toy')
    steps = derived.train_dataloader.dataset.dataset.pipeline
    assert next(s for s in steps if 'patch_size' in s).patch_size == 32


def test_out_of_tree(toy_cfg):
    exec(CODE)
    derived = derive_tuning_config(short(toy_cfg, recipe='toy'))
    assert derived.model.criterion.type == 'mm_tuning_plugin.ExpectedTripletLoss'
    assert "(`32` in 'toy')" in options_table()
    assert resolve_options(dict(recipe='toy', patch_size=64)).patch_size == 64


def test_an_unknown_recipe_is_refused():
    with mistake('mix_and_match.recipe', 'toy', 'paper'):
        resolve_options(dict(recipe='toy'))


@pytest.mark.parametrize(
    ('wrong', 'found', 'remedy'),
    [(dict(margn=2), 'no such option', 'margin'), (dict(margin=-1), '-1', 'above 0')],
)
def test_a_mistake_in_a_recipe_is_refused(wrong, found, remedy):
    register_recipe('toy', 'wrong', **wrong)
    with mistake(f"recipe 'toy'.{next(iter(wrong))}", found, remedy):
        resolve_options(dict(recipe='toy'))


def test_two_recipes_of_one_name_are_refused():
    assert exec(CODE) is exec(CODE)
    with mistake('mix_and_match.recipe', "'toy'", 'name of its own'):
        register_recipe('toy', 'another')
