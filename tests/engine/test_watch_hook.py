"""What the watch says of real runs: of each way in which tuning fails, and nothing of a sound one.

The rules themselves are held to simulated courses in test_watch_rules.py.
"""

import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from gloo import end_group, start_ranks

from mm_tuning_plugin import functional
from mm_tuning_plugin.engine import MixAndMatchRunner, derive_tuning_config
from mm_tuning_plugin.engine.watch.lone import LoneClasses
from mm_tuning_plugin.engine.watch.rules import SHORTEST_RUN

SOUND = dict(lr=3.0)  # of this data set and network: recall rises
COLLAPSE = 'embeddings have collapsed'
RISING = 'the loss rises, as at a learning rate too high'
STILL = 'the loss does not move'
RECALL = 'recall@1 does not rise'
UNMATCHED = 'no triplets in '
INACTIVE = 'no active triplets'
LONE = 'classes without positives'
ALL = (COLLAPSE, RISING, STILL, RECALL, UNMATCHED, INACTIVE, LONE)
ALONE = dict(images_per_batch=1, points_per_class=1)


def tune(cfg, **options):
    cfg.default_hooks.logger.interval = 1000
    known = dict(max_iters=SHORTEST_RUN, checkpoint_interval=1000)
    cfg.mix_and_match.update({**known, **options})
    return MixAndMatchRunner.from_cfg(cfg).tune()


def told(capfd):
    """(iteration, line) of all warnings of the watch."""
    out = capfd.readouterr().out
    found = [re.search(r'WARNING.* - iteration (\d+): (.*)', text) for text in out.splitlines()]
    said = [(int(match[1]), match[2]) for match in found if match]
    return [(i, text) for i, text in said if text.startswith(ALL)]


def kinds(said):
    return {kind for kind in ALL for _, text in said if text.startswith(kind)}


def test_it_watches_every_derived_tuning(toy_cfg):
    hooks = [hook['type'] for hook in derive_tuning_config(toy_cfg).custom_hooks]
    assert hooks.count('mm_tuning_plugin.WatchHook') == 1
    finite = hooks.index('mm_tuning_plugin.FiniteHook')
    assert finite < hooks.index('mm_tuning_plugin.WatchHook'), 'what is not finite ends the run'


def test_a_sound_run_is_silent(toy_cfg, capfd):
    tune(toy_cfg, **SOUND)
    assert told(capfd) == []


@pytest.mark.parametrize('options, expected, remedy', [
    (dict(lr=30.0, max_iters=120), {COLLAPSE}, 'lower mix_and_match.lr (now '),
    (dict(lr=1e-9), {STILL}, 'raise mix_and_match.lr (now 1e-09)'),
    (ALONE, {UNMATCHED, LONE}, 'raise mix_and_match.images_per_batch'),
], ids=['rate too high', 'rate too low', 'nodes alone'])  # fmt: skip
def test_what_fails_is_told_of_in_one_line_with_a_remedy(toy_cfg, capfd, options, expected, remedy):
    tune(toy_cfg, retrieval_images=0, **options)
    said = told(capfd)
    assert expected <= kinds(said) <= expected | {RISING}
    for kind in expected - {LONE}:
        assert len([text for _, text in said if text.startswith(kind)]) == 1, 'once'
    assert all('expected' in text for _, text in said)
    assert any(remedy in text for _, text in said)
    if LONE in expected:
        (first, _), *_ = [(i, text) for i, text in said if text.startswith(LONE)]
        assert first < SHORTEST_RUN, 'while something can still be changed'


def test_a_rate_far_too_high_does_not_ask_for_a_higher_one(toy_cfg, capfd):
    tune(toy_cfg, retrieval_images=0, lr=100.0, max_iters=120)
    said = told(capfd)
    assert kinds(said) & {RISING, STILL, COLLAPSE}
    assert 'mix_and_match.lr (now ' in str(said) and 'raise mix_and_match.lr' not in str(said)


def test_recall_that_does_not_rise(toy_cfg, capfd, monkeypatch):
    monkeypatch.setattr(
        'mm_tuning_plugin.evaluation.retrieval.NodeRetrievalMetric.compute_metrics',
        lambda self, results: {'recall@1': 0.25},
    )
    tune(toy_cfg, **SOUND)
    ((iteration, text),) = told(capfd)
    assert iteration == SHORTEST_RUN and text.startswith(f'{RECALL}: 0.250 before tuning')
    assert '--no-tuning' in text


def test_triplets_that_all_rest(toy_cfg, capfd, monkeypatch):
    monkeypatch.setattr(functional, 'active_triplet_share', lambda *_: torch.zeros(()))
    tune(toy_cfg, loss='graph_triplet', retrieval_images=0, **SOUND)
    said = [text for _, text in told(capfd) if text.startswith(INACTIVE)]
    assert len(said) == 1 and 'raise mix_and_match.margin' in said[0]


def test_a_resumed_run_says_nothing_twice_and_judges_the_whole(toy_cfg, capfd):
    options = dict(ALONE, checkpoint_interval=50)
    tune(toy_cfg, **options)
    whole = told(capfd)
    early, late = ([s for s in whole if s[0] <= 50], [s for s in whole if s[0] > 50])
    assert kinds(early) == {UNMATCHED, LONE} and kinds(late) == {RECALL, LONE}
    tuning = Path(toy_cfg.work_dir, 'tuning')
    (tuning / 'tuned_backbone.pth').unlink()
    (tuning / f'iter_{SHORTEST_RUN}.pth').unlink()
    (tuning / 'last_checkpoint').write_text(str(tuning / 'iter_50.pth'))
    toy_cfg.resume = True
    tune(toy_cfg, **options)
    assert told(capfd) == late


def test_a_trial_is_not_judged(toy_cfg, capfd):
    tune(toy_cfg, max_iters=SHORTEST_RUN - 1, **ALONE)
    assert told(capfd) == []


def count(rank, folder, shares):
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=len(shares)
    )
    lone = LoneClasses(['road', 'pole', 'sign'])
    for _ in range(10):
        for labels in shares[rank]:
            lone.add(torch.tensor(labels, dtype=torch.int64))
        lone.exchange()
    torch.save(lone.state_dict(), f'{folder}/{rank}.pth')
    end_group()


def test_ranks_count_a_batch_together(tmp_path):
    # Batches: road twice, pole alone; then sign twice, one node on each rank.
    shares = [[[0, 1], [2]], [[0], [2]]]
    start_ranks(count, str(tmp_path), shares)
    states = [torch.load(tmp_path / f'{rank}.pth') for rank in range(2)]
    for state in states:
        assert state['present'].tolist() == [10, 10, 10] and state['alone'].tolist() == [0, 10, 0]
