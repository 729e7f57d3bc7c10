"""A terminal of a few control codes: what a person would see of what a process wrote."""

import os
import pty
import re
import struct
import sys
import termios
from fcntl import ioctl

CODES = re.compile(
    r'\x1b\[(\??)([0-9;]*)([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\r\n]|[^\x1b\r\n]+'
)


class Screen:
    """Lines without end in both directions; lines do not wrap.

    Attributes:
        lines: What it shows, from the top.
        cursor: Whether the cursor is shown.
    """

    def __init__(self, written):
        self.lines, self.row, self.column, self.cursor = [''], 0, 0, True
        for code in CODES.finditer(written):
            self._obey(code)

    @property
    def shown(self):
        """The lines that are not empty."""
        return [line for line in self.lines if line]

    def _obey(self, code):
        text = code.group()
        if text == '\r':
            self.column = 0
        elif text == '\n':
            self.row, self.column = self.row + 1, 0  # the terminal adds the return
            if self.row == len(self.lines):
                self.lines.append('')
        elif text.startswith('\x1b'):
            self._control(*code.groups())
        else:
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + text + line[self.column + len(text) :]
            self.column += len(text)

    def _control(self, private, number, letter):
        if letter == 'A':
            self.row = max(0, self.row - int(number or 1))
        elif letter == 'K':
            assert number == '2'
            self.lines[self.row] = ''
        elif private and number == '25':
            self.cursor = letter == 'h'
        else:
            assert letter == 'm' or letter is None, (private, number, letter)


def on_a_terminal(act, columns=200, signal_at=None):
    """Call a function in a forked process whose stdout and stderr are a terminal.

    Args:
        act: The function.
        columns: Width of the terminal.
        signal_at: (text, signal): sent once, when the text has been written.

    Returns:
        (exit status, everything written, line ends as the process wrote them).
    """
    process, terminal = pty.fork()
    if process == 0:
        status = 1
        try:
            os.environ.update(TERM='xterm', COLUMNS=str(columns))
            sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, 'w', buffering=1)
            sys.stderr = os.fdopen(2, 'w', buffering=1)
            status = int(act() or 0)
        except SystemExit as ended:
            status = int(ended.code)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 50, columns, 0, 0))
    written = b''
    while True:
        try:
            part = os.read(terminal, 1 << 16)
        except OSError:  # its last writer has gone
            break
        if not part:
            break
        written += part
        if signal_at is not None and signal_at[0].encode() in written:
            os.kill(process, signal_at[1])
            signal_at = None
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    text = written.decode(errors='replace').replace('\r\n', '\n')
    return os.waitstatus_to_exitcode(status), text
