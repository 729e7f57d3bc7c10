"""``mm-tuning list``: what is registered, by concept."""

import pytest
from mistakes import check_mistake

from mm_tuning_plugin import registry
from mm_tuning_plugin.checkpoint.naming import NAMINGS
from mm_tuning_plugin.cli.list import CONCEPTS, entry
from mm_tuning_plugin.losses.base import named_losses
from mm_tuning_plugin.nodes.base import node_kinds
from mm_tuning_plugin.recipes.base import recipes

REGISTRIES = dict(
    hooks=registry.HOOKS,
    transforms=registry.TRANSFORMS,
    samplers=registry.DATA_SAMPLERS,
    metrics=registry.METRICS,
)


def listed(capsys, *argv):
    """Concept -> its lines."""
    assert entry(list(argv)) == 0
    blocks = capsys.readouterr().out.strip().split('\n\n')
    return {block.partition(':\n')[0]: block.splitlines()[1:] for block in blocks}


def test_every_concept_lists_what_is_registered_with_a_description(capsys):
    found = listed(capsys)
    expected = dict(losses=list(named_losses()), nodes=node_kinds(), recipes=recipes())
    expected['proxies'] = ['mm_tuning_plugin.RotationModel', 'mmpretrain.MoCo']
    expected['namings'] = [naming.title for naming in NAMINGS]
    for concept, source in REGISTRIES.items():
        expected[concept] = [f'mm_tuning_plugin.{name}' for name in source.module_dict]
    assert list(found) == list(CONCEPTS) and expected.keys() == found.keys()
    for concept, names in expected.items():
        assert names
        for name in names:
            (line,) = [line for line in found[concept] if line.startswith(f'  {name}  ')]
            assert len(line.split()) > len(name.split()), line


def test_one_concept(capsys):
    """A short name comes with its class and arguments, a loss without one with its class alone."""
    (lines,) = listed(capsys, 'losses').values()
    assert len(lines) == len(named_losses()) + 1
    (balanced,) = [line for line in lines if 'balanced_contrastive' in line]
    assert 'mm_tuning_plugin.SupervisedContrastiveLoss, balanced=True: ' in balanced
    assert any(line.startswith('  mm_tuning_plugin.PMLLoss  ') for line in lines)


@pytest.mark.parametrize(('concept', 'nearest'), [('loses', 'losses'), ('HOOKS', 'hooks')])
def test_an_unknown_concept_is_answered_with_the_nearest(concept, nearest, capsys):
    assert entry([concept]) == 2
    line = capsys.readouterr().err.removeprefix('error: ')
    check_mistake(line, 'CONCEPT', repr(concept), (f'use {nearest}', *CONCEPTS))
