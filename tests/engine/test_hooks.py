"""What the hooks of stage one say, and what a checkpoint carries of it."""

import re
from types import SimpleNamespace

import pytest
import torch

from mm_tuning_plugin.engine import NodeStatisticsHook, SaveBackboneHook

NAMES = ['ground', 'field', 'water', 'roof']


def see(hook, *images, iteration=0, **outputs):
    """One iteration over images given as (path, labels)."""
    runner = SimpleNamespace(iter=iteration)
    batch = dict(
        labels=[torch.tensor(labels, dtype=torch.int64) for _, labels in images],
        meta=dict(img_path=[path for path, _ in images]),
    )
    hook.before_train_iter(runner, iteration, batch)
    outputs = {'triplets': torch.tensor(3.0), **outputs}
    hook.after_train_iter(runner, iteration, batch, outputs)


def checkpoint_of(tmp_path, *hooks):
    """What the hooks leave in a checkpoint, through a file that is read as weights only."""
    checkpoint = {}
    for hook in hooks:
        hook.before_save_checkpoint(None, checkpoint)
    torch.save(checkpoint, tmp_path / 'saved.pth')
    return torch.load(tmp_path / 'saved.pth', weights_only=True)


@pytest.fixture
def said(capsys):
    return lambda: capsys.readouterr().out


@pytest.mark.parametrize('exchanged', [True, False])
def test_what_was_seen_before_an_interruption_is_known_after_it(tmp_path, said, exchanged):
    hook = NodeStatisticsHook(NAMES)
    see(hook, ('a.jpg', [0, 0, 2]), ('b.jpg', []), triplets=torch.tensor(0.0))
    if exchanged:
        hook.exchange_over_ranks(None)
    assert 'b.jpg: ' in said()
    resumed = NodeStatisticsHook(NAMES)
    resumed.after_load_checkpoint(None, checkpoint_of(tmp_path, hook))
    assert resumed.images_without_nodes == {'b.jpg'}
    see(resumed, ('a.jpg', [0, 1]), ('b.jpg', []), iteration=1)
    assert 'b.jpg' not in said()
    resumed.after_train(None)
    text = said()
    assert ': roof\n' in text and re.search(r'\b1 of 2 .*triplets', text)
    assert resumed.nodes_per_class.tolist() == [3, 1, 1, 0]


def test_a_checkpoint_without_counts_is_no_error(said):
    hook = NodeStatisticsHook(NAMES)
    hook.after_load_checkpoint(None, {'mm_tuning_plugin': {'hash_before': 'x'}})
    see(hook, ('a.jpg', [0, 1, 2, 3]), iteration=9)
    hook.after_train(None)
    text = said()
    assert not [name for name in NAMES if name in text]


@pytest.mark.parametrize('turned', [False, True])
def test_the_hooks_leave_each_others_part_alone(tmp_path, turned):
    hooks = [NodeStatisticsHook(NAMES), SaveBackboneHook()]
    hooks[1].hash_before = 'h'
    saved = checkpoint_of(tmp_path, *(hooks[::-1] if turned else hooks))
    assert saved['mm_tuning_plugin'].keys() == {'seen', 'hash_before', 'retrieval'}


def test_ranks_without_nodes_are_warned_of_once_and_counted(said):
    hook = NodeStatisticsHook(NAMES)
    image = ('a.jpg', [0, 1, 2, 3])
    for iteration, idle in enumerate([0, 2, 1]):
        see(hook, image, iteration=iteration, ranks_without_nodes=torch.tensor(float(idle)))
    see(hook, image, iteration=3)
    text = said()
    assert text.count(' of 1 ranks') == 1 and 'iteration 2: 2 of 1 ranks' in text
    hook.after_train(None)
    assert '2 of 4 batches' in said()
