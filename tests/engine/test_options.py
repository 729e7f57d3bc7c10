import re

import pytest
from mistakes import mistake

from mm_tuning_plugin.engine.config.options import (
    OPTIONS,
    options_table,
    resolve_options,
)
from mm_tuning_plugin.nodes.base import node_name
from mm_tuning_plugin.recipes.base import recipes


def test_defaults_pass_their_own_checks():
    for option in OPTIONS:
        assert option.check(option.default), option.name
    for name in recipes():
        resolve_options(dict(recipe=name))


def test_given_options_win_over_the_recipe_and_the_recipe_over_the_defaults():
    options = resolve_options(dict(recipe='paper', max_iters=5))
    assert options.max_iters == 5
    assert options.nodes == 'patches'
    assert options.loss == 'graph_triplet'
    assert options.nodes_per_image == 9
    assert options.margin == 2.1


def test_nodes_per_image_follows_the_kind_of_nodes():
    assert resolve_options(dict(nodes='points')).nodes_per_image == 128
    assert resolve_options(dict(nodes='patches')).nodes_per_image == 9
    assert resolve_options(dict(nodes='points', nodes_per_image=3)).nodes_per_image == 3


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('max_iters', 0),
        ('max_iters', -5),
        ('max_iters', 1.5),
        ('max_iters', True),
        ('max_iters', '2000'),
        ('nodes_per_image', 0),
        ('images_per_batch', 0),
        ('lr', 0),
        ('lr', -1.0),
        ('lr', float('nan')),
        ('size_range', (256, 64)),
        ('size_range', (0, 64)),
        ('size_range', (64,)),
        ('size_range', 64),
        ('size_range', (65, 65)),
        ('size_range', (0.5, 64)),
        ('size_range', (0.5, 0.25)),
        ('max_overlap', 1.5),
        ('background_ratio', -0.1),
        ('balance', 'classes'),
        ('recipe', 'papers'),
        ('nodes', 'point'),
        ('loss', 'triplet'),
        ('checkpoint', 3),
        ('checkpoint', ''),
        ('temperature', 0),
        ('min_matched', 2),
        ('background_index', 'sky'),
        ('transforms', 'RandomFlip'),
        ('overwrite', 1),
        ('pictures', 'mosaic'),
        ('pictures', None),
        ('pictures', ['mosaic', 'heatmap']),
        ('pictures', [['mosaic']]),
        ('picture_interval', 0),
        ('picture_interval', 2.5),
        ('picture_interval', True),
        ('picture_interval', '500'),
        ('augment', 'weak'),
        ('augment', dict(type='RandomFlip')),
        ('augment', [dict(prob=0.5)]),
        ('augment', ['RandomFlip']),
        ('augment', [dict(type='mmseg.PackSegInputs')]),
        ('augment', [dict(type='RandomMosaic')]),
    ],
)
def test_values_out_of_range_are_refused_by_name(name, value):
    (option,) = [option for option in OPTIONS if option.name == name]
    with mistake(f'mix_and_match.{name}', repr(value), option.expected):
        resolve_options({name: value})


def test_nodes_are_called_by_a_word():
    assert [node_name(nodes) for nodes in ('points', 'patches')] == ['points', 'patches']
    assert node_name(dict(type='my.SampleGrid', like='patches')) == 'SampleGrid'


def test_an_unknown_option_offers_the_nearest_known_one():
    with mistake('mix_and_match.max_iter', remedy='max_iters'):
        resolve_options(dict(max_iter=5))
    names = '|'.join(option.name for option in OPTIONS)
    with mistake('mix_and_match.zzz', remedy=re.compile(rf'\b({names})$')):
        resolve_options(dict(zzz=5))


@pytest.mark.parametrize('value', [[1, 2], 'paper', 3])
def test_something_else_than_a_dict_is_refused(value):
    with mistake('mix_and_match', repr(value), 'dict'):
        resolve_options(value)


@pytest.mark.parametrize('value', [(64, 256), [64, 64], (0.25, 1.0), (2, 3)])
def test_size_range_takes_pixels_and_fractions(value):
    assert resolve_options(dict(size_range=value)).size_range == value


def test_the_table_in_the_docs_is_the_one_the_code_makes():
    from pathlib import Path

    docs = Path(__file__).parents[2] / 'docs' / 'options.md'
    assert options_table() in docs.read_text(encoding='utf-8'), 'run `make docs`'
