import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from steps_on_disk import make_step

from mm_tuning_plugin.benchmark.run import progress
from mm_tuning_plugin.benchmark.run.logs import LogReader, Reading, read_line
from mm_tuning_plugin.benchmark.run.progress import Bars, Display, Work, duration, make_display
from mm_tuning_plugin.benchmark.steps import Outcome

LINE = (
    '2026/07/01 12:00:00 - mmengine - INFO - Iter(train) [ 50/1000]  base_lr: 1.0000e-02 lr: '
    '1.0000e-02  eta: 0:01:35  time: 0.1000  data_time: 0.0100  loss: 1.2345'
)
ROOT = Path('folder')


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(progress, 'time', SimpleNamespace(monotonic=lambda: Clock.now))
    return Clock


def test_reads_how_far_a_run_is():
    reading = read_line(LINE, Reading())
    assert reading == Reading('', 50, 1000, 0.1, 0)
    assert reading.fraction == 0.05 and reading.left == pytest.approx(95.0)
    for other in ('Iter(val) [5/9] time: 3', 'saved in 3 s', '', LINE[:40]):
        assert read_line(other, reading) is reading
    resumed = read_line('mmengine - INFO - resumed epoch: 0, iter: 500', Reading())
    assert read_line(LINE.replace(' 50/', '550/'), resumed)[1:] == (550, 1000, 0.1, 500)
    tuning = read_line('stage 1 of 2: tuning', reading)
    assert tuning == Reading('tuning') and (tuning.fraction, tuning.left) == (0.0, None)
    assert read_line('stage 2 of 2: fine-tuning', tuning).stage == 'fine-tuning'


def test_follows_a_log_as_it_is_written(tmp_path):
    log = tmp_path / 'log.txt'
    assert LogReader(log).read() == Reading() and LogReader(log).tail() == []
    log.write_text(f'{LINE}\n')
    reader = LogReader(log)
    assert reader.read() == Reading()  # of an earlier attempt
    with log.open('ab', buffering=0) as file:
        file.write(LINE.replace(' 50/', '100/').encode()[:70])
        assert reader.read() == Reading()  # half a line
        file.write(LINE.replace(' 50/', '100/').encode()[70:] + b'\n\xff\n')
        assert reader.read().iteration == 100
        assert reader.read().iteration == 100
    assert [line[-12:] for line in reader.tail()] == ['loss: 1.2345', '\ufffd']
    assert reader.tail(1) == ['\ufffd']


def test_the_whole_is_weighted_by_flops(clock):
    steps = [make_step(ROOT, 'large', flops=3e12), make_step(ROOT, 'small', flops=1e12)]
    work = Work(steps)
    assert work.done == 0 and work.left is None
    work.update([(steps[0], Reading())])
    clock.now += 10
    assert work.left is None  # nothing is made yet
    work.update([(steps[0], Reading('', 50, 100))])
    assert work.done == pytest.approx(1.5 / 4)
    assert work.left == pytest.approx(10 * 2.5 / 1.5)
    work.settle(steps[0].product, made=True)
    clock.now += 20
    assert work.done == pytest.approx(3 / 4) and work.left == pytest.approx(10)
    work.settle(steps[1].product, made=True)
    assert work.done == 1 and work.left == 0


def test_unknown_flops_count_as_the_mean():
    steps = [make_step(ROOT, str(flops), flops=flops) for flops in (1.0, 3.0, 0.0)]
    work = Work(steps)
    work.settle(steps[2].product, made=True)
    assert work.done == pytest.approx(2 / 6)
    assert Work([make_step(ROOT, 'a', flops=0), make_step(ROOT, 'b', flops=0)]).done == 0
    assert Work([]).done == 1


def test_what_others_did_says_nothing_of_the_speed(clock):
    before, failed, resumed, running = (make_step(ROOT, name) for name in 'abcd')
    work = Work([before, failed, resumed, running])
    work.settle(before.product, made=False)
    work.update([(resumed, Reading()), (running, Reading())])
    clock.now += 10
    work.update([(resumed, Reading('', 90, 100, resumed=80)), (running, Reading('', 10, 100))])
    # 0.1 + 0.1 in 10 s; 0.1 + 0.9 + 1 to go
    assert work.done == pytest.approx(2.0 / 4) and work.left == pytest.approx(100)
    work.settle(resumed.product, made=True)  # 0.2 + 0.1 in 10 s
    work.settle(failed.product, made=False)
    assert work.left == pytest.approx(10 * 0.9 / 0.3)


def test_lines_where_there_is_no_terminal(monkeypatch, clock):
    steps = [make_step(ROOT, name) for name in ('first', 'second', 'third', 'fourth')]
    monkeypatch.setattr(sys, 'stdout', io.StringIO())
    display = make_display(steps)
    with display:
        display.finished_before([])
        display.begun(steps[0])
        display.update([(steps[0], Reading())])
        clock.now += 30
        display.settled(steps[0], Outcome('done', 30.4))
        display.settled(steps[1], Outcome('done'))
        display.begun(steps[2])
        display.settled(
            steps[2], Outcome('failed', 1.0, 'ended with 2: x', ('a', 'x'), ROOT / 'log')
        )
        display.failures([])
        assert display.work.left == 30  # what failed made nothing
    assert sys.stdout.getvalue().splitlines() == [
        'begun   first',
        'done    first in 30 s  (1 of 4, ETA 0:01:30)',
        'done    second elsewhere  (2 of 4, ETA 0:01:00)',
        'begun   third',
        'failed  third ended with 2: x',
        '    | a',
        '    | x',
        '    folder/log',
    ]


def screen(display):
    """What the bars show now."""
    console = display._progress.console
    with console.capture() as capture:
        console.print(display._progress.get_renderable())
    return [' '.join(line.split()) for line in capture.get().splitlines()]


def test_bars_on_a_terminal(clock):
    steps = [make_step(ROOT, name, flops=flops) for name, flops in (('r18[b]', 3.0), ('b', 1.0))]
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=110, color_system=None)
    with Bars(steps, console) as display:
        display._progress.stop()  # nothing is drawn by itself
        display.begun(steps[0])
        whole, first = screen(display)
        assert whole.startswith('all steps ') and whole.endswith('0 of 2 steps ETA -')
        assert first.startswith('r18[b] (tuning) ') and first.endswith('starting ETA -')
        display.update([(steps[0], Reading())])
        clock.now += 10
        display.update([(steps[0], Reading('fine-tuning', 50, 100, 0.25))])
        whole, first = screen(display)
        assert whole.endswith('0 of 2 steps ETA 0:00:17')
        assert first.startswith('r18[b] (fine-tuning) ')
        assert first.endswith('50/100 4.0 it/s ETA 0:00:12')
        # of 40 characters; without colours, what is not done is blank
        assert [line.count('━') for line in (whole, first)] == [15, 20]
        display.settled(steps[0], Outcome('done', 10.0))
        (whole,) = screen(display)
        assert whole.endswith('1 of 2 steps ETA 0:00:03')
    assert 'done    r18[b] in 10 s  (1 of 2, ETA 0:00:03)' in file.getvalue()


def test_a_terminal_has_bars(monkeypatch):
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True, raising=False)
    assert isinstance(make_display([]), Bars)
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: False, raising=False)
    assert type(make_display([])) is Display


def test_durations():
    assert (duration(None), duration(3723.4), duration(0)) == ('-', '1:02:03', '0:00:00')
