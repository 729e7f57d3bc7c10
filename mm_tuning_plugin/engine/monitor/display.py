"""Where the line of progress is shown: last on a terminal, else as a plain line now and then.

mmengine's own lines stand above it as they are: to the letter, and never wrapped.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import sys
import time
from collections.abc import Iterator
from threading import RLock
from typing import Any, TextIO

from mmengine.logging import MMLogger

from mm_tuning_plugin.engine.monitor.status import Status

# Seconds between two plain lines: a night's log gets some hundred, a batch job's owner no riddle.
PLAIN_INTERVAL = 60.0
# Seconds between two pictures of the live line: more cannot be read, and each costs a millisecond.
LIVE_INTERVAL = 0.2
BAR_WIDTH = 20


class Display:
    """Plain lines: one a minute, and one as a stage ends.

    Args:
        stream: Where they go; None: stdout at the time.
    """

    interval = PLAIN_INTERVAL

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream
        self._shown = time.monotonic()

    def __enter__(self) -> Display:
        self._shown = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to close."""

    def update(self, status: Status, *, now: bool = False) -> None:
        """Show where the run is, if the last time is long enough ago.

        Args:
            status: Where it is.
            now: Show it in any case: a stage has ended.
        """
        if now or time.monotonic() - self._shown >= self.interval:
            self._shown = time.monotonic()
            try:
                self.show(status, now)
            except (OSError, ValueError):  # nobody reads any more, or the stream is closed
                self.interval = math.inf

    def show(self, status: Status, ended: bool) -> None:
        """Show it."""
        print(f'progress: {status}', file=self.stream or sys.stdout, flush=True)


class Above(io.TextIOBase):
    """A stream whose lines are written above the live line.

    It is no thread's that the line is drawn by, and a process that was forked writes past it: no
    lock of ours can be held where nobody will open it.

    Args:
        stream: The stream itself.
        console: rich's, which knows of the line.
    """

    def __init__(self, stream: TextIO, console: Any) -> None:
        self.stream, self.console = stream, console
        self.live = True
        self._process, self._lock, self._begun = os.getpid(), RLock(), ''

    def write(self, text: str) -> int:
        """Write whole lines; the beginning of one waits for its end."""
        if not self.live or os.getpid() != self._process:
            return self.stream.write(text)
        with self._lock:
            whole, end, begun = (self._begun + text).rpartition('\n')
            self._begun = begun.rpartition('\r')[2]  # a bar of somebody else's draws over itself
            if end:
                # print, not out: what is in brackets stays, and so do the codes of colours
                self.console.print(
                    _Raw(whole), markup=False, highlight=False, soft_wrap=True, emoji=False
                )
        return len(text)

    def release(self) -> None:
        """The live line is gone: from here on it is the stream itself."""
        self.live = False
        self.stream.write(self._begun)
        self._begun = ''

    def flush(self) -> None:
        """See `io.TextIOBase`."""
        self.stream.flush()

    def isatty(self) -> bool:
        """See `io.TextIOBase`."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """See `io.TextIOBase`."""
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """See `io.TextIOBase`."""
        return self.stream.encoding


class _Raw:
    """Text that rich hands on as it is."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.segment import Segment

        yield Segment(self.text)
        yield Segment.line()


class LiveDisplay(Display):
    """The line at the bottom of a terminal, by rich."""

    interval = LIVE_INTERVAL

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        from rich.console import Console
        from rich.live import Live

        self.console = Console(file=self.stream or sys.stdout)
        # No thread of rich's: workers are forked meanwhile, and would inherit its locks.
        self._live = Live(
            console=self.console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._streams = contextlib.ExitStack()

    def __enter__(self) -> LiveDisplay:
        super().__enter__()
        self._live.start()
        self.console.show_cursor(True)  # a process that is killed leaves it as it is
        for name in ('stdout', 'stderr'):
            stream = getattr(sys, name)
            if stream.isatty():
                self._redirect(name, stream)
        return self

    def __exit__(self, *_: object) -> None:
        with self._streams, contextlib.suppress(OSError, ValueError):  # of a terminal that is gone
            self._live.stop()

    def show(self, status: Status, ended: bool) -> None:
        """Draw the line anew; that of a stage which has ended stays."""
        line = _draw(status, self.console.width)
        if ended:
            self.console.print(line)
        self._live.update(line, refresh=True)

    def _redirect(self, name: str, stream: TextIO) -> None:
        """Send what is written to a stream, by loggers that have it already too, above the line."""
        above = Above(stream, self.console)

        def restore() -> None:
            above.release()
            if getattr(sys, name) is above:
                setattr(sys, name, stream)
            _change_handlers(above, stream)

        setattr(sys, name, above)
        _change_handlers(stream, above)
        self._streams.callback(restore)


def make_display() -> Display:
    """The live line on a terminal that can redraw it, else plain lines."""
    if not sys.stdout.isatty() or os.environ.get('TERM', 'dumb') in ('dumb', 'unknown'):
        return Display()
    return LiveDisplay()


def _change_handlers(old: Any, new: Any) -> None:
    for logger in (logging.getLogger(), *MMLogger._instance_dict.values()):
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is old:
                handler.setStream(new)


def _draw(status: Status, width: int) -> Any:
    """A line of a terminal `width` columns wide: what is cut off is what matters least."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    where, figures = status.describe()
    if len(where) + len(figures) + BAR_WIDTH + 2 > width:
        for short in (False, True):
            line = '  '.join(status.describe(short))
            if len(line) <= width:
                break
        return Text(line, no_wrap=True, overflow='ellipsis')
    grid = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=1.0, completed=status.share, width=BAR_WIDTH)
    grid.add_row(Text(where), bar, Text(figures))
    return grid
