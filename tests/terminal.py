"""A command on a terminal of its own: a real pseudo-terminal, and pyte, which interprets what is written to it as xterm does."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import pyte

CHECKOUT = Path(__file__).parents[1]


class Terminal:
    """A context manager; the command is killed at its end if it is still there."""

    def __init__(self, command: Sequence[str], columns: int = 80, lines: int = 24, **environment: str) -> None:
        self.raw = b""
        """All that was written to it."""
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._master, slave = os.openpty()
        self.resize(columns, lines)
        variables = os.environ | {"TERM": "xterm", "LC_ALL": "C.UTF-8"} | environment
        # as its controlling terminal, so that SIGWINCH comes; what runs the tests may ignore signals, as nohup does
        with_terminal = ["env", "--default-signal", "setsid", "--ctty", *command]
        self.child = subprocess.Popen(with_terminal, stdin=slave, stdout=slave, stderr=slave, env=variables, cwd=CHECKOUT)
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        os.close(self._master)

    @property
    def lines(self) -> list[str]:
        """What it shows."""
        return [line.rstrip() for line in self._screen.display]

    def resize(self, columns: int, lines: int) -> None:
        """Change its size. The command gets SIGWINCH."""
        self._screen.resize(lines, columns)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def wait_for(self, condition: Callable[[list[str]], bool], seconds: float = 60) -> list[str]:
        """Return what it shows, once it meets a condition."""
        end = time.monotonic() + seconds
        while not condition(self.lines):
            assert time.monotonic() < end, "\n".join(self.lines)
            self._read(0.1)
        return self.lines

    def after(self, seconds: float) -> list[str]:
        """Return what it shows some time later."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._read(0.1)
        return self.lines

    def ended(self, number: signal.Signals | None = None) -> int:
        """Return the status of the command, once it has ended by itself or by a signal."""
        if number is not None:
            self.child.send_signal(number)
        end = time.monotonic() + 60
        while self._read(0.1):
            assert time.monotonic() < end, "\n".join(self.lines)
        return self.child.wait(60)

    def _read(self, seconds: float) -> bool:
        """Take what was written; return whether more may come."""
        if not select.select([self._master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: nobody has it open any more
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)
