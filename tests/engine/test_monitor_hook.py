"""What the watch says of real runs: of each way in which tuning fails, and nothing of a sound one.

The rules themselves are held to simulated histories in test_monitor_rules.py.
"""

import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from gloo import end_group, start_ranks

from mm_tuning_plugin import functional
from mm_tuning_plugin.engine import MixAndMatchRunner, derive_tuning_config
from mm_tuning_plugin.engine.monitor import hook
from mm_tuning_plugin.engine.monitor.rules import SHORTEST_JUDGED_RUN
from mm_tuning_plugin.engine.monitor.singleton_classes import SingletonClasses

SOUND = dict(lr=3.0)  # of this data set and network: recall rises
# Names of rules; that on classes alone is none of `RULES`.
COLLAPSE, RISING, STILL, RECALL = 'collapse', 'rising loss', 'still loss', 'recall'
UNMATCHED, INACTIVE, LONE = 'no triplets', 'no active triplets', 'lone classes'
ALONE = dict(images_per_batch=1, points_per_class=1)


def tune(cfg, **options):
    cfg.default_hooks.logger.interval = 1000
    known = dict(max_iters=SHORTEST_JUDGED_RUN, checkpoint_interval=1000)
    cfg.mix_and_match.update({**known, **options})
    return MixAndMatchRunner.from_cfg(cfg).tune()


@pytest.fixture(autouse=True)
def rule_of(monkeypatch):
    """{line: rule} of all that the watch finds."""
    found, judge, judge_classes = {}, hook.judge, SingletonClasses.judge

    def judged(history, said):
        findings = judge(history, said)
        found.update({finding.text: finding.rule for finding in findings})
        return findings

    def judged_classes(self, iteration):
        text = judge_classes(self, iteration)
        found[text] = LONE
        return text

    monkeypatch.setattr(hook, 'judge', judged)
    monkeypatch.setattr(SingletonClasses, 'judge', judged_classes)
    return found


@pytest.fixture
def told(capfd, rule_of):
    """(iteration, rule, line) of all warnings of the watch since the last call."""

    def read():
        out = capfd.readouterr().out
        lines = re.findall(r'WARNING.*? - (iteration (\d+): .*)', out)
        return [(int(i), rule_of[text], text) for text, i in lines if text in rule_of]

    return read


def rules(said):
    return {rule for _, rule, _ in said}


def test_it_watches_every_derived_tuning(toy_cfg):
    hooks = [config['type'] for config in derive_tuning_config(toy_cfg).custom_hooks]
    assert hooks.count('mm_tuning_plugin.WatchHook') == 1
    finite = hooks.index('mm_tuning_plugin.FiniteHook')
    assert finite < hooks.index('mm_tuning_plugin.WatchHook'), 'what is not finite ends the run'


def test_a_sound_run_is_silent(toy_cfg, told):
    tune(toy_cfg, **SOUND)
    assert told() == []


@pytest.mark.parametrize('options, expected, remedy', [
    (dict(lr=30.0, max_iters=120), {COLLAPSE}, 'lower mix_and_match.lr (now '),
    (dict(lr=1e-9), {STILL}, 'raise mix_and_match.lr (now 1e-09)'),
    (ALONE, {UNMATCHED, LONE}, 'raise mix_and_match.images_per_batch'),
], ids=['rate too high', 'rate too low', 'nodes alone'])  # fmt: skip
def test_what_fails_is_told_of_in_one_line_with_a_remedy(toy_cfg, told, options, expected, remedy):
    tune(toy_cfg, retrieval_images=0, **options)
    said = told()
    assert expected <= rules(said) <= expected | {RISING}
    for name in expected - {LONE}:
        assert [rule for _, rule, _ in said].count(name) == 1, 'once'
    assert all('mix_and_match.' in text for _, _, text in said)
    assert any(remedy in text for _, _, text in said)
    if LONE in expected:
        first = next(i for i, rule, _ in said if rule == LONE)
        assert first < SHORTEST_JUDGED_RUN, 'while something can still be changed'


def test_a_rate_far_too_high_does_not_ask_for_a_higher_one(toy_cfg, told):
    tune(toy_cfg, retrieval_images=0, lr=100.0, max_iters=120)
    said = told()
    assert rules(said) & {RISING, STILL, COLLAPSE}
    assert 'mix_and_match.lr (now ' in str(said) and 'raise mix_and_match.lr' not in str(said)


def test_recall_that_does_not_rise(toy_cfg, told, monkeypatch):
    monkeypatch.setattr(
        'mm_tuning_plugin.evaluation.retrieval.NodeRetrievalMetric.compute_metrics',
        lambda self, results: {'recall@1': 0.25},
    )
    tune(toy_cfg, **SOUND)
    ((iteration, rule, text),) = told()
    assert (iteration, rule) == (SHORTEST_JUDGED_RUN, RECALL)
    assert '0.250' in text and '--no-tuning' in text


def test_triplets_that_all_rest(toy_cfg, told, monkeypatch):
    monkeypatch.setattr(functional, 'active_triplet_share', lambda *_: torch.zeros(()))
    tune(toy_cfg, loss='graph_triplet', retrieval_images=0, **SOUND)
    said = [text for _, rule, text in told() if rule == INACTIVE]
    assert len(said) == 1 and 'raise mix_and_match.margin' in said[0]


def test_a_resumed_run_says_nothing_twice_and_judges_the_whole(toy_cfg, told):
    options = dict(ALONE, checkpoint_interval=50)
    tune(toy_cfg, **options)
    whole = told()
    early, late = ([s for s in whole if s[0] <= 50], [s for s in whole if s[0] > 50])
    assert rules(early) == {UNMATCHED, LONE} and rules(late) == {RECALL, LONE}
    tuning = Path(toy_cfg.work_dir, 'tuning')
    (tuning / 'tuned_backbone.pth').unlink()
    (tuning / f'iter_{SHORTEST_JUDGED_RUN}.pth').unlink()
    (tuning / 'last_checkpoint').write_text(str(tuning / 'iter_50.pth'))
    toy_cfg.resume = True
    tune(toy_cfg, **options)
    assert told() == late


def test_a_trial_is_not_judged(toy_cfg, told):
    tune(toy_cfg, max_iters=SHORTEST_JUDGED_RUN - 1, **ALONE)
    assert told() == []


def count(rank, folder, shares):
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=len(shares)
    )
    lone = SingletonClasses(['road', 'pole', 'sign'])
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
