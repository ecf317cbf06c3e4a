"""The terminal: draws lines with curses, and reads keys."""

from __future__ import annotations

import contextlib
import curses
import locale
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Self

from exporter.top.view import Line, Style

_ASCII = str.maketrans(" ▁▂▃▄▅▆▇█", " .:-=+*#@")
"""For terminals without UTF-8."""


class Screen:
    """A context manager: the terminal is as it was at its end, whatever happens."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._styles: dict[Style, int] = {}
        self._encoding = "utf-8"

    def __enter__(self) -> Self:
        locale.setlocale(locale.LC_ALL, "")
        self._encoding = locale.getencoding()
        os.environ.setdefault("ESCDELAY", "25")
        self._window = curses.initscr()
        curses.noecho()
        curses.cbreak()
        self._window.keypad(True)
        self._window.nodelay(True)
        self._styles = {
            Style.PLAIN: 0,
            Style.BOLD: curses.A_BOLD,
            Style.TITLES: curses.A_REVERSE,
            Style.WARNING: curses.A_BOLD,
            Style.FAILING: 0,
        }
        with contextlib.suppress(curses.error):  # a terminal without that
            curses.curs_set(0)
        if not self._environment.get("NO_COLOR"):
            curses.start_color()
            if curses.has_colors():
                curses.use_default_colors()
                curses.init_pair(1, curses.COLOR_RED, -1)
                curses.init_pair(2, curses.COLOR_YELLOW, -1)
                self._styles[Style.FAILING], self._styles[Style.WARNING] = curses.color_pair(1), curses.color_pair(2)
        return self

    def __exit__(self, *_: object) -> None:
        self._window.keypad(False)
        curses.nocbreak()
        curses.echo()
        curses.endwin()

    def size(self) -> tuple[int, int]:
        """Return columns and lines. The terminal is asked, since curses misses a change whose signal comes at the wrong moment."""
        with contextlib.suppress(OSError):  # it has gone
            now = os.get_terminal_size(sys.stdout.fileno())
            if now.lines and now.columns and curses.is_term_resized(now.lines, now.columns):
                curses.resizeterm(now.lines, now.columns)
        height, width = self._window.getmaxyx()
        return width, height

    def draw(self, lines: Sequence[Line]) -> None:
        """Show lines, which fit. Only what has changed is sent to the terminal."""
        self._window.erase()
        for at, (text, style) in enumerate(lines):
            with contextlib.suppress(curses.error):  # the cursor cannot go behind the last cell; or the terminal has just become smaller
                self._window.addstr(at, 0, self._encodable(text), self._styles[style])
        self._window.refresh()

    def keys(self, use: Callable[[str], None]) -> None:
        """Call `use` with each key that was pressed."""
        while True:
            try:
                key = self._window.get_wch()
            except curses.error:
                return
            use(key if isinstance(key, str) else curses.keyname(key).decode())

    def _encodable(self, text: str) -> str:
        try:
            text.encode(self._encoding)
        except UnicodeEncodeError:
            return text.translate(_ASCII).encode(self._encoding, "replace").decode(self._encoding)
        return text
