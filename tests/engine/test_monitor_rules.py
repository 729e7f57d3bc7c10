"""Rules on simulated runs with a known answer: what each finds, and none on a healthy run."""

import math
import random
import re

import pytest
import torch

from mm_tuning_plugin.engine.monitor.block_means import BlockMeans, block_length, block_of, mean_of
from mm_tuning_plugin.engine.monitor.rules import EXPLAINED_BY, RULES, RunHistory, judge, still
from mm_tuning_plugin.engine.monitor.singleton_classes import SingletonClasses

SERIES = ('loss', 'variance', 'active', 'unmatched')


def healthy(share, draw):
    """The scalars of an iteration as CamVid's runs have them, by the share of the run behind it."""
    return dict(
        loss=(2 + 3 * math.exp(-6 * share)) * (1 + 0.1 * draw.gauss(0, 1)),
        variance=0.13 + 0.1 * share,
        active=1.0,
        unmatched=0.0,
    )


def simulate(max_iters=1000, seed=0, recalls=None, until=None, **changed):
    """What is said over a run, by rule; `changed` gives scalars by share and draw."""
    history, said, findings = RunHistory(max_iters), set(), []
    history.lr, length, draw = 0.01, block_length(max_iters), random.Random(seed)
    recalls = {0: 0.3, max_iters: 0.4} if recalls is None else recalls
    history.recalls[0] = recalls.get(0)
    if history.recalls[0] is None:
        del history.recalls[0]
    for iteration in range(1, (until or max_iters) + 1):
        share = iteration / max_iters
        values = healthy(share, draw)
        values.update({name: scalar(share, draw) for name, scalar in changed.items()})
        history.iteration = iteration
        for name in SERIES:
            getattr(history, name).add(iteration, values[name])
            if iteration % length == 0:
                getattr(history, name).close(iteration)
        if iteration in recalls:
            history.recalls[iteration] = recalls[iteration]
        if iteration % length == 0 or iteration in recalls:
            findings += judge(history, said)
    return {finding.rule: finding.text for finding in findings}


def numbers(text):
    """The numbers of a line behind its iteration."""
    return [float(number) for number in re.findall(r'\d+(?:\.\d+)?', text.split(': ', 1)[1])]


def noisy(level, spread):
    return lambda share, draw: level(share) * (1 + spread * draw.gauss(0, 1))


HEALTHY = {
    'default': {},
    'noise of half the loss': dict(loss=noisy(lambda x: 2 + 3 * math.exp(-6 * x), 0.5)),
    'a slow fall': dict(loss=noisy(lambda x: 0.66 - 0.15 * x, 0.05)),
    'all of the fall in the first block': dict(
        loss=noisy(lambda x: 1 + 4 * math.exp(-300 * x), 0.02)
    ),
    'towards zero': dict(loss=noisy(lambda x: 2 * math.exp(-12 * x), 0.3)),
    'a bump that mends': dict(
        loss=noisy(lambda x: 2 + 3 * math.exp(-6 * x) + (0.5 if 0.4 < x < 0.45 else 0), 0.1)
    ),
    'flat while the rate warms up': dict(
        loss=noisy(lambda x: 5 - 3 * max(0, min(1, (x - 0.1) / 0.5)), 0.05)
    ),
    'narrow features': dict(variance=lambda share, draw: 0.005),
    'half of the triplets rest': dict(active=lambda share, draw: 0.05),
    'now and then a batch without triplets': dict(
        unmatched=lambda share, draw: float(draw.random() < 0.2)
    ),
    'a loss without triplets': dict(
        active=lambda share, draw: None, unmatched=lambda share, draw: None
    ),
    'recall was not measured': dict(recalls={}),
    'recall was as good as it can be': dict(recalls={0: 0.98, 1000: 0.98}),
    'recall falls, then rises': dict(recalls={0: 0.5, 200: 0.45, 600: 0.49, 1000: 0.52}),
}


@pytest.mark.parametrize('max_iters', [300, 1000, 8000])
@pytest.mark.parametrize('name', HEALTHY)
def test_health_is_silent(name, max_iters):
    changed = dict(HEALTHY[name])
    if 'recalls' in changed:
        changed['recalls'] = {i * max_iters // 1000: r for i, r in changed['recalls'].items()}
    for seed in range(1 if max_iters == 8000 else 4):
        assert simulate(max_iters, seed, **changed) == {}


@pytest.mark.parametrize('max_iters', [300, 1000])
def test_a_collapse_is_told_of_with_its_remedy(max_iters):
    sinking = simulate(max_iters, variance=lambda x, _: 0.2 * math.exp(-40 * x), loss=lambda *_: 2)
    assert sinking.keys() == {'collapse'}  # that the loss stands still needs no second line
    assert 'variance' in sinking['collapse'] and 'lower mix_and_match.lr (now 0.01)' in str(sinking)
    from_the_start = simulate(max_iters, variance=lambda x, _: 1e-5)
    assert from_the_start['collapse'].startswith('iteration 30: ')
    assert 'convert_checkpoint.py --inspect' in from_the_start['collapse']


def test_triplets_that_are_missing_or_rest():
    missing = simulate(unmatched=lambda x, d: float(d.random() < 0.9), loss=lambda *_: 0.0)
    assert missing.keys() == {'no triplets'}
    assert 30 in numbers(missing['no triplets']) and 'images_per_batch' in str(missing)
    resting = simulate(active=lambda x, _: 0.0 if x > 0.3 else 1.0)
    assert resting.keys() == {'no active triplets'}
    assert resting['no active triplets'].startswith('iteration 330: ')
    assert 'mix_and_match.margin' in str(resting)


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('spread', [0.0, 0.02, 0.05])
def test_a_loss_that_does_not_move(seed, spread):
    told = simulate(seed=seed, loss=noisy(lambda x: 2.1, spread))
    assert told.keys() <= {'still loss'}
    if told:
        assert 'raise mix_and_match.lr (now 0.01)' in told['still loss']
        iteration = int(told['still loss'].split(':')[0].split()[1])
        assert 250 <= iteration <= 1000
    assert told or spread == 0.05  # among so much noise it is told of in most runs, not in all


def test_a_loss_that_rises_above_its_start_and_one_that_loses_what_it_gained():
    rising = simulate(loss=noisy(lambda x: 2 + 2 * x, 0.1))
    assert rising.keys() == {'rising loss'}
    found = numbers(rising['rising loss'])
    assert any(1.9 < n < 2.1 for n in found) and any(2.2 < n < 2.6 for n in found), 'then and now'
    assert 'lower mix_and_match.lr (now 0.01)' in rising['rising loss']
    lost = simulate(loss=noisy(lambda x: 2 + 3 * abs(1 - 2 * x), 0.05))
    assert lost.keys() == {'rising loss'}
    assert any(500 <= n < 600 for n in numbers(lost['rising loss'])), 'where it was lowest'


def thrown_up(by, spread):
    """A loss that the first step throws up, where it stays."""
    return noisy(lambda x: 5.0 if x <= 0.001 else 5.0 * (1 + by), spread)


@pytest.mark.parametrize('seed', range(5))
def test_a_loss_that_the_first_step_throws_up_does_not_ask_for_larger_steps(seed):
    told = simulate(seed=seed, loss=thrown_up(0.5, 0.03))
    assert told.keys() == {'rising loss'}
    draw = random.Random(seed)
    healthy(0.001, draw)  # `simulate` draws it first
    begin = thrown_up(0.5, 0.03)(0.001, draw)
    assert f'{begin:.3g}' in told['rising loss']
    assert 'lower mix_and_match.lr (now 0.01)' in str(told)
    noise = simulate(seed=seed, loss=thrown_up(0.8, 0.2))
    assert not noise or 'lower mix_and_match.lr' in str(noise)
    assert 'raise' not in str(noise)
    unsure = simulate(seed=seed, loss=thrown_up(0.3, 0.02), max_iters=1000, until=300)
    assert 'lower' in str(unsure) and 'raise' not in str(unsure)


@pytest.mark.parametrize('level, spread, change', [
    (5.0, 0.02, 'raise'), (5.4, 0.02, 'raise'), (5.7, 0.02, 'change'),
    (6.5, 0.02, 'lower'), (6.5, 0.5, 'change'),
])  # fmt: skip
def test_the_remedy_of_a_still_loss_depends_on_where_it_began(level, spread, change):
    history = RunHistory(1000)
    history.loss.begin, history.iteration = 5.0, 300
    for iteration in range(1, 301):
        history.loss.add(iteration, level * (1 + (-1) ** iteration * spread))
        if iteration % 50 == 0:
            history.loss.close(iteration)
    assert f'{change} mix_and_match.lr' in still(history)


def test_recall_that_stays_or_falls():
    at_the_end = simulate(recalls={0: 0.355, 1000: 0.352})
    assert at_the_end.keys() == {'recall'}
    assert {0.355, 0.352} <= set(numbers(at_the_end['recall']))
    on_the_way = simulate(recalls={0: 0.5, 200: 0.5, 400: 0.505, 600: 0.5, 1000: 0.5})
    assert on_the_way['recall'].startswith('iteration 600: ')
    assert simulate(recalls={0: 0.5, 200: 0.5, 400: 0.5}, until=500) == {}  # too early to tell


def test_every_rule_speaks_once_and_a_trial_is_not_judged():
    dead = dict(variance=lambda *_: 0.0, recalls=dict.fromkeys(range(0, 1001, 100), 0.5))
    assert simulate(**dead).keys() == {'collapse', 'recall'}
    assert simulate(99, **dead) == {}
    assert RULES.keys() >= EXPLAINED_BY.keys()


def test_a_rule_that_spoke_before_an_interruption_is_silent_after_it():
    history = RunHistory(1000)
    history.recalls.update({0: 0.5, 1000: 0.5})
    assert [finding.rule for finding in judge(history, set())] == ['recall']
    assert not judge(history, {'recall'})


@pytest.mark.parametrize('seed', range(3))
def test_blocks_equal_means_over_all_values(seed):
    draw, series, values = random.Random(seed), BlockMeans(), []
    for iteration in range(1, 61):
        values.append(draw.gauss(3, 1))
        series.add(iteration, values[-1])
        if iteration % 20 == 0:
            series.close(iteration)
    assert [block.last for block in series.blocks] == [20, 40, 60]
    whole = mean_of(series.blocks)
    expected = torch.tensor(values, dtype=torch.float64)
    assert whole.mean == pytest.approx(expected.mean().item()) and whole.count == 60
    own = torch.stack([part.var() / 20 for part in expected.split(20)]).sum().sqrt() / 3
    assert whole.error == pytest.approx(own.item())
    assert series.first == block_of(5, values[:5])


def test_what_is_missing_or_not_finite_is_left_out():
    series = BlockMeans()
    for iteration, value in enumerate([1.0, None, math.nan, math.inf, 3.0], 1):
        series.add(iteration, value)
    series.close(5)
    series.close(6)  # nothing since
    assert len(series.blocks) == 1 and series.blocks[0][:3] == (5, 2, 2.0)


def test_a_series_goes_on_where_it_was(tmp_path):
    whole, half = BlockMeans(), BlockMeans()
    for iteration in range(1, 8):
        whole.add(iteration, float(iteration))
        if iteration <= 4:
            half.add(iteration, float(iteration))
    torch.save(half.state_dict(), tmp_path / 'state.pth')
    resumed = BlockMeans()
    resumed.load_state_dict(torch.load(tmp_path / 'state.pth', weights_only=True))
    for iteration in range(5, 8):
        resumed.add(iteration, float(iteration))
    for series in (whole, resumed):
        series.close(7)
    assert resumed.state_dict() == whole.state_dict()


def batches(lone, rows):
    for labels in rows:
        lone.add(torch.tensor(labels, dtype=torch.int64))
    lone.exchange()


def test_classes_that_are_nearly_always_alone():
    lone = SingletonClasses(['road', 'pole', 'sign', 'car', 'sky'])
    often = [[0, 0, 1, 3]] * 18 + [[0, 0, 1, 1, 3]] * 2  # pole: alone in 18 of 20
    batches(lone, [*often, *[[0, 0, 2]] * 19])  # sign: always, but in 19 batches only
    text = lone.judge(39)
    assert text.startswith('iteration 39: ')
    assert re.search(r'\bpole\b.*\b18 of 20\b.*\bcar\b.*\b20 of 20\b', text)
    assert 'sign' not in text and 'road' not in text and 'sky' not in text
    assert lone.judge(40) is None  # once
    batches(lone, [[2]])
    text = lone.judge(41)
    assert re.search(r'\bsign\b.*\b20 of 20\b', text) and 'pole' not in text and 'car' not in text


def test_a_class_that_is_alone_now_and_then_is_not_named():
    lone = SingletonClasses(['road', 'pole'])
    batches(lone, [[0, 0, 1]] * 17 + [[0, 0, 1, 1]] * 3)
    assert lone.judge(20) is None


def test_many_such_classes_make_one_line(tmp_path):
    lone = SingletonClasses([f'c{k}' for k in range(150)])
    batches(lone, [list(range(150))] * 20)
    torch.save(lone.state_dict(), tmp_path / 'state.pth')
    resumed = SingletonClasses([f'c{k}' for k in range(150)])
    resumed.load_state_dict(torch.load(tmp_path / 'state.pth', weights_only=True))
    text = resumed.judge(20)
    assert text == lone.judge(20)
    assert 'c7 ' in text and 'c8 ' not in text and 142 in numbers(text) and '\n' not in text
