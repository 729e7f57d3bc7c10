"""Display of the progress line: live at the bottom of a terminal, or one plain line a minute.

Lines of mmengine and others appear above the live line unchanged and unwrapped.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import sys
import time
from threading import RLock
from typing import TYPE_CHECKING, TextIO

from mmengine.logging import MMLogger

from mm_tuning_plugin.engine.monitor.status import Status

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

# Seconds between two plain lines. A few hundred per night: short, yet shows that a job is alive.
PLAIN_INTERVAL = 60.0
# Seconds between two updates of the live line; each takes a millisecond.
LIVE_INTERVAL = 0.2
BAR_WIDTH = 20


class Display:
    """Plain lines: one a minute, and one at the end of a stage.

    Args:
        stream: Where they are written; None for the current stdout.
    """

    interval = PLAIN_INTERVAL

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream
        self._shown = time.monotonic()

    def __enter__(self) -> Display:
        self._shown = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def update(self, status: Status, *, now: bool = False) -> None:
        """Show the progress if `interval` has passed since the last time.

        Args:
            status: The progress.
            now: Show it in any case, at the end of a stage.
        """
        if now or time.monotonic() - self._shown >= self.interval:
            self._shown = time.monotonic()
            try:
                self.show(status, now)
            except (OSError, ValueError):  # the pipe is broken or the stream closed
                self.interval = math.inf

    def show(self, status: Status, ended: bool) -> None:
        """Write the line."""
        print(f'progress: {status}', file=self.stream or sys.stdout, flush=True)


class Above(io.TextIOBase):
    """A stream that writes its lines above the live line.

    A forked process writes to the original stream, as it may have inherited a lock that no thread
    there releases. rich's own redirection would wrap lines and has no such guard.

    Args:
        stream: The original stream.
        console: The console of rich that shows the live line.
    """

    def __init__(self, stream: TextIO, console: Console) -> None:
        self.stream, self.console = stream, console
        self.live = True
        self._process, self._lock, self._begun = os.getpid(), RLock(), ''

    def write(self, text: str) -> int:
        """Write complete lines; an incomplete one is kept until its end comes."""
        if not self.live or os.getpid() != self._process:
            return self.stream.write(text)
        with self._lock:
            whole, end, begun = (self._begun + text).rpartition('\n')
            self._begun = begun.rpartition('\r')[2]  # another progress bar overwrites itself
            if end:
                # brackets are no markup here, and colour codes pass through
                self.console.print(
                    _Raw(whole), markup=False, highlight=False, soft_wrap=True, emoji=False
                )
        return len(text)

    def release(self) -> None:
        """The live line has ended: write to the original stream from now on."""
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
    """Text that rich prints unchanged."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        yield Segment(self.text)
        yield Segment.line()


class LiveDisplay(Display):
    """The live line at the bottom of a terminal, drawn by rich."""

    interval = LIVE_INTERVAL

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        from rich.console import Console
        from rich.live import Live

        self.console = Console(file=self.stream or sys.stdout)
        # No refreshing thread: loading workers are forked, and would inherit its locks.
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
        self.console.show_cursor(True)  # it would stay hidden if the process were killed
        for name in ('stdout', 'stderr'):
            stream = getattr(sys, name)
            if stream.isatty():
                self._redirect(name, stream)
        return self

    def __exit__(self, *_: object) -> None:
        with self._streams, contextlib.suppress(OSError, ValueError):  # the terminal may be gone
            self._live.stop()

    def show(self, status: Status, ended: bool) -> None:
        """Redraw the line; at the end of a stage it also stays as a printed line."""
        line = _draw(status, self.console.width)
        if ended:
            self.console.print(line)
        self._live.update(line, refresh=True)

    def _redirect(self, name: str, stream: TextIO) -> None:
        """Write a stream's output above the line, also from loggers that already hold it."""
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
    """Return a live line on a terminal that can redraw it, or plain lines."""
    if not sys.stdout.isatty() or os.environ.get('TERM', 'dumb') in ('dumb', 'unknown'):
        return Display()
    return LiveDisplay()


def _change_handlers(old: TextIO, new: TextIO) -> None:
    for logger in (logging.getLogger(), *MMLogger._instance_dict.values()):
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is old:
                handler.setStream(new)


def _draw(status: Status, width: int) -> RenderableType:
    """Draw the line for `width` columns: drop the bar, then shorten, if it is too long."""
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
