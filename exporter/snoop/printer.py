"""Prints records to standard output, in a thread of its own: the reader of the output may be slow or gone."""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Callable, Iterable

from exporter.library.processes import Records
from exporter.records import encoding
from exporter.records.cells import cut
from exporter.records.record import Record
from exporter.records.stacks import Stacks
from exporter.records.tree import folded
from exporter.snoop import flags, lines, tree_lines
from exporter.snoop.flags import Options
from exporter.snoop.order import MOST, Sorted
from exporter.snoop.screen import Screen, has_colours
from exporter.snoop.summary import Summary

_MOST_STACKS = 8192


class Output:
    """A descriptor to print to, without a buffer."""

    def __init__(self, fd: int, encoding: str = "utf-8") -> None:
        self.fd = fd
        self._encoding = encoding
        self.terminal = os.isatty(fd)

    def size(self) -> tuple[int, int]:
        """Return columns and lines of the terminal; 0 for what it does not tell."""
        return os.get_terminal_size(self.fd)

    def print(self, texts: Iterable[str]) -> None:
        """Print lines. On a terminal, they are cut to its width."""
        width = self.size()[0] if self.terminal else 0
        self.write(cut(text, width) if width else text for text in texts)

    def write(self, texts: Iterable[str]) -> None:
        """Print lines as they are."""
        whole = "".join(f"{text}\n" for text in texts)
        rest = memoryview(whole.encode(self._encoding, "backslashreplace"))
        while rest:
            rest = rest[os.write(self.fd, rest) :]


class Printer(threading.Thread):
    """Prints records until no more come, `--count` is reached or the reader of the output has gone."""

    def __init__(self, options: Options, records: Records, output: Output, wake: Callable[[], None]) -> None:
        """`wake` is called when it ends, for any reason."""
        super().__init__(name="printer", daemon=True)
        self.summary = Summary()
        self._stacks = Stacks(_MOST_STACKS)
        self.ended = False
        self.failure: Exception | None = None
        self._options = options
        more = [flags.ARGS] if options.args else []
        self._header, self._line = lines.of_records(*more)
        if options.json:
            self._line = encoding.line
        self._screen = Screen(more, wide=options.wide, colours=has_colours(output.fd)) if output.terminal and not options.json else None
        self._sorted = None if options.sort is None else Sorted(options.sort, options.count or MOST)
        self._records = records
        self._output = output
        self._wake = wake

    def run(self) -> None:
        try:
            self._print()
        except Exception as failure:  # noqa: BLE001 - the main thread raises it
            self.failure = failure
        finally:
            self.ended = True
            self._wake()

    def _print(self) -> None:
        poll = select.poll()
        poll.register(self._records.fileno(), select.POLLIN)
        poll.register(self._output.fd, 0)  # reports that the reader has gone
        if self._screen is None and not (self._options.json or self._options.at_end):
            self._output.write([self._header])
        more = True
        while more and self._left() != 0:
            if any(fd == self._output.fd for fd, _ in poll.poll()):
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            batch, more = self._records.pop()
            self._show(batch[: self._left()])
        if self._sorted is not None:
            self._print_sorted(self._sorted)
        elif self._options.tree:
            self._output.print(tree_lines.lines(self._stacks.sums()))
        elif self._options.folded is not None:
            self._output.print(folded(self._stacks.sums(), self._options.folded))

    def _left(self) -> int | None:
        """Return how many lines may still be printed."""
        return None if self._options.count is None or self._sorted is not None else self._options.count - self.summary.count

    def _show(self, batch: list[Record]) -> None:
        if self._options.sums_only:
            self._stacks.add(batch)
        elif self._sorted is not None:
            self._sorted.add(batch)
        else:
            self._write(batch)
        self.summary.add(batch)

    def _write(self, batch: list[Record]) -> None:
        if self._screen is None:
            self._output.write(map(self._line, batch))
        else:
            self._output.write(self._screen.lines(batch, self._output.size()))

    def _print_sorted(self, chosen: Sorted) -> None:
        if self._screen is None and not self._options.json:
            self._output.write([self._header])
        self._write(chosen.records())
        if chosen.more and not self._options.json:
            self._output.print([f"... and {chosen.more} more"])
