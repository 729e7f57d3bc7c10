"""Where the line of progress is shown: plain, live, and what others write meanwhile."""

import io
import logging
import os
import signal
import sys

import pytest
from mmengine.logging import MMLogger
from screen import Screen, on_a_terminal

from mm_tuning_plugin.engine.monitor import display
from mm_tuning_plugin.engine.monitor.display import Above, Display, LiveDisplay, make_display
from mm_tuning_plugin.engine.monitor.status import Stage, Status

STAGES = [Stage('tuning', '10 iterations'), Stage('fine-tuning', '20 iterations')]


def status(iteration=3, **known):
    return Status(STAGES, iteration=iteration, of=10, **known)


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(display, 'time', clock)
    return clock


def test_plain_lines_come_once_a_minute_and_as_a_stage_ends(clock):
    stream = io.StringIO()
    with Display(stream) as plain:
        for second in range(0, 130, 10):
            clock.now = second
            plain.update(status(second // 10))
        plain.update(status(10), now=True)
    lines = stream.getvalue().splitlines()
    assert [line.split()[4] for line in lines] == ['6/10', '12/10', '10/10']
    assert (
        lines[0]
        == 'progress: stage 1/2 tuning 6/10  60%  ETA 4 iterations + fine-tuning (20 iterations)'
    )
    assert '\x1b' not in stream.getvalue() and '\r' not in stream.getvalue()


@pytest.mark.parametrize('error', [BrokenPipeError(), ValueError('I/O operation on closed file')])
def test_a_stream_that_nobody_reads_ends_the_line_and_not_the_run(clock, error):
    class Broken(io.StringIO):
        tried = 0

        def write(self, text):
            self.tried += 1
            raise error

    stream = Broken()
    with Display(stream) as plain:
        for second in (100, 200, 300):
            clock.now = second
            plain.update(status())
    assert stream.tried == 1


@pytest.mark.parametrize('terminal, term, kind', [
    (False, 'xterm', Display), (True, 'dumb', Display), (True, None, Display),
    (True, 'xterm', LiveDisplay),
])  # fmt: skip
def test_the_live_line_is_for_terminals_that_can_draw_it(monkeypatch, terminal, term, kind):
    class Stream(io.StringIO):
        def isatty(self):
            return terminal

    monkeypatch.setattr(sys, 'stdout', Stream())
    if term is None:
        monkeypatch.delenv('TERM', raising=False)
    else:
        monkeypatch.setenv('TERM', term)
    assert type(make_display()) is kind


class Console:
    """What `Above` needs of rich's."""

    def __init__(self):
        self.printed = []

    def print(self, raw, **options):
        self.printed.append(raw.text)


def test_whole_lines_go_above_and_the_beginning_of_one_waits():
    stream, console = io.StringIO(), Console()
    above = Above(stream, console)
    for text in ('one\ntw', 'o\n', '', 'three', ' 10%\rthree 20%', '\rthree 30%'):
        assert above.write(text) == len(text)
    assert console.printed == ['one', 'two'] and stream.getvalue() == ''
    above.write('\n')
    assert console.printed[2:] == ['three 30%']
    above.write('left')
    above.release()
    above.write(' over\n')
    assert stream.getvalue() == 'left over\n' and len(console.printed) == 3


def test_a_forked_process_writes_past_the_line():
    reading, writing = os.pipe()
    console = Console()
    with os.fdopen(reading) as out, os.fdopen(writing, 'w') as stream:
        above = Above(stream, console)
        with above._lock:  # held by a thread that the child does not have
            process = os.fork()
            if process == 0:
                above.write('from the child\n')
                above.flush()
                os._exit(0)
        assert os.waitpid(process, 0)[1] == 0
        assert out.readline() == 'from the child\n'
    assert console.printed == []


def test_a_stream_passes_on_what_it_is():
    above = Above(sys.__stdout__, Console())
    assert above.encoding == sys.__stdout__.encoding and above.isatty() == sys.__stdout__.isatty()
    assert above.fileno() == sys.__stdout__.fileno()


def write_beside_the_line():
    """A minute of a run: loggers that were there before and that come meanwhile, print, colours."""
    early = MMLogger.get_instance('early')
    stdout, stderr = sys.stdout, sys.stderr
    with make_display() as live:
        assert isinstance(live, LiveDisplay)
        live.interval = 0
        live.update(status(1))
        early.info('early [bold] %s', 'x' * 150)
        live.update(status(2, loss=0.5))
        late = MMLogger.get_instance('late')
        late.warning('late :smile:')
        print('printed \x1b[31mred\x1b[0m', end='')
        print(' on')
        print('to stderr', file=sys.stderr)
        live.update(status(10, loss=0.25), now=True)
    assert (sys.stdout, sys.stderr) == (stdout, stderr)
    for logger in (early, late):
        (handler,) = [h for h in logger.handlers if type(h) is logging.StreamHandler]
        assert handler.stream is stdout
    print('afterwards')


@pytest.mark.parametrize('columns', [60, 200])
def test_lines_of_others_stand_above_the_live_line_to_the_letter(columns):
    exit_status, written = on_a_terminal(write_beside_the_line, columns)
    assert exit_status == 0, written
    screen = Screen(written)
    assert screen.cursor
    early, late, printed, stderr, ended, afterwards, rest = screen.lines
    assert early.endswith('early [bold] ' + 'x' * 150), 'not wrapped, not taken for markup'
    assert late.endswith('late :smile:')
    assert 'stage' not in early + late, 'nothing of the live line is left beside them'
    assert (printed, stderr) == ('printed red on', 'to stderr')
    assert ended.startswith('stage 1/2 tuning 10/10 ') and '\x1b[31mred\x1b[0m' in written
    assert len(ended) <= columns
    if columns == 60:  # no room for the bar, and for how long fine-tuning will be
        assert ended == 'stage 1/2 tuning 10/10  ETA 0:00:00+  loss 0.25'
    else:
        assert '━' in ended
        assert ended.endswith('ETA 0:00:00 + fine-tuning (20 iterations)  loss 0.25')
    assert (afterwards, rest) == ('afterwards', '')


def end_by(error):
    def act():
        with make_display() as live:
            live.interval = 0
            live.update(status(1))
            print('at work')
            live.update(status(2))
            print('half a line', end='')
            raise error

    return act


@pytest.mark.parametrize('error, code', [(SystemExit(130), 130), (RuntimeError('wrong'), 1)])
def test_an_error_leaves_a_clean_terminal(error, code):
    exit_status, written = on_a_terminal(end_by(error))
    assert exit_status == code
    screen = Screen(written)
    assert screen.cursor and screen.lines[0] == 'at work'
    assert not any('tuning' in line and 'ETA' in line for line in screen.lines)
    assert screen.lines[1].startswith('half a line')


def wait_for_a_kill():
    with make_display() as live:
        live.interval = 0
        live.update(status(1))
        print('ready', flush=True)
        live.update(status(2))
        signal.pause()


def test_a_process_that_is_killed_leaves_the_cursor_shown():
    exit_status, written = on_a_terminal(
        wait_for_a_kill, signal_at=('stage 1/2 tuning 2/10', signal.SIGKILL)
    )
    assert exit_status == -signal.SIGKILL and Screen(written).cursor
