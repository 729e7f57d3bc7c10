"""Time to go, on a clock of our own; and the line that tells where a run is."""

import itertools

import pytest

from mm_tuning_plugin.engine.config.options import resolve_options
from mm_tuning_plugin.engine.monitor.eta import WINDOW, Pace, TimeLeft, validations_left
from mm_tuning_plugin.engine.monitor.line import length_of, stages_of
from mm_tuning_plugin.engine.monitor.status import Stage, Status


def ran(steps):
    """A pace after steps: seconds of an iteration, or ('val', seconds)."""
    pace, now = Pace(), 100.0
    pace.begin(now)
    for step in steps:
        if isinstance(step, tuple):
            pace.begin_validation(now)
            now += step[1]
            pace.validated(now)
        else:
            now += step
            pace.iterated(now)
    return pace


def test_the_first_iteration_and_validations_are_no_part_of_an_iteration():
    pace = ran([60.0, 2.0, ('val', 30.0), 2.0, 2.0])
    assert pace.left(10, 0) == TimeLeft(20.0)
    assert pace.left(10, 2) == TimeLeft(80.0)
    assert pace.left(0, 0) == TimeLeft(0.0)
    assert str(pace.left(10, 2)) == '0:01:20'


def test_the_speed_is_that_of_late():
    slow = [5.0] * 50
    assert ran([9.0, *slow, *[1.0] * WINDOW]).left(7, 0) == TimeLeft(7.0)


def test_what_is_not_known_is_said():
    assert ran([]).left(8, 1) == TimeLeft(None, '8 iterations')
    assert ran([60.0]).left(8, 0).seconds is None, 'the first iteration says nothing'
    some = ran([60.0, 2.0]).left(8, 1)
    assert some == TimeLeft(16.0, 'validation')
    assert (str(some), some.shortly()) == ('0:00:16 + validation', '0:00:16+')
    assert (str(TimeLeft(None)), TimeLeft(None).shortly(), TimeLeft(None, 'all').shortly()) == (
        '-',
        '-',
        '+',
    )


@pytest.mark.parametrize('total, interval, begin', itertools.product([1, 7, 12], [1, 3, 5], [1, 4]))
def test_validations_equal_those_that_a_loop_finds_due(total, interval, begin):
    due = [i for i in range(1, total + 1) if i >= begin and (i % interval == 0 or i == total)]
    for done in range(total + 1):
        left = sum(i > done for i in due)
        assert validations_left(done, total, interval, begin) == left


STAGES = [Stage('tuning', '10 iterations'), Stage('fine-tuning', '3 epochs')]


def test_the_line_tells_stage_iteration_time_and_figures():
    status = Status(STAGES, iteration=4, of=10, pace=ran([60.0, 2.0, 2.0]), validations=1)
    assert str(status) == (
        'stage 1/2 tuning 4/10  40%  ETA 0:00:12 + validation + fine-tuning (3 epochs)'
    )
    status.loss, status.active, status.recall = 0.51237, 0.846, [0.3]
    status.pace.validations.append(5.0)
    assert str(status) == (
        'stage 1/2 tuning 4/10  40%  ETA 0:00:17 + fine-tuning (3 epochs)  loss 0.5124  '
        'active 85%  recall@1 0.300'
    )
    status.index, status.active, status.validating = 1, None, (2, 9)
    status.recall.append(0.41)
    status.score = ('mIoU', 31.256)
    assert status.describe(short=True) == (
        'stage 2/2 fine-tuning 4/10, validating 2/9',
        'ETA 0:00:17  loss 0.5124  recall@1 0.300 -> 0.410  mIoU 31.26',
    )


def test_a_single_stage_has_no_number_and_one_that_has_not_begun_no_share():
    assert str(Status(STAGES[1:])) == 'fine-tuning 0/0  0%  ETA 0:00:00'


@pytest.mark.parametrize('options, names', [
    (dict(enabled=True, tuned_backbone=None), ['tuning', 'fine-tuning']),
    (dict(enabled=False, tuned_backbone=None), ['fine-tuning']),
    (dict(enabled=True, tuned_backbone='a.pth'), ['fine-tuning']),
])  # fmt: skip
def test_the_stages_are_those_that_will_run(options, names):
    stages = stages_of(
        dict(train_cfg=dict(max_epochs=3)), resolve_options(dict(max_iters=10, **options))
    )
    assert [stage.name for stage in stages] == names
    assert stages[-1].length == '3 epochs'
    assert len(stages) == 1 or stages[0].length == '10 iterations'
    assert length_of({}) == 'of unknown length'
