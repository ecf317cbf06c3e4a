"""Runs snoop: the main thread waits for signals while other threads observe and print."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable
from typing import Protocol

from exporter.config.options import Config
from exporter.config.problems import one_line
from exporter.library.history import History
from exporter.model import ModeUnavailable
from exporter.process import log
from exporter.process.signals import Signals, hangup_is_ignored
from exporter.snoop.flags import Options, beyond
from exporter.snoop.following import Following, StreamLost
from exporter.snoop.printer import Inbox, Output, Printer
from exporter.snoop.reading import Reading
from exporter.snoop.watching import Watching

OK, FAILED, BAD_USAGE = 0, 1, 2

_TICK_SECONDS = 1.0
_STOPS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_LAST_LINES_SECONDS = 2.0
"""Time for the reader of the output to read the last lines after a signal."""


class RecordSource(Protocol):
    """A source of records: this host or another exporter."""

    failure: str | None
    """Why no more records will come; None while it works."""
    finished: bool
    """Whether all records have come."""
    dropped: int
    """Short processes whose records did not reach the inbox; known after `stop`."""

    def start(self) -> None:
        """Start to put records into the inbox. Raises `ModeUnavailable` or `StreamLost`."""

    def tick(self) -> None:
        """Do periodic work; called about once a second."""

    def stop(self) -> None:
        """Stop; all records seen so far are in the inbox when this returns."""


def main(options: Options, config: Config) -> int:
    """Print records until a signal, `--duration` or `--count`. Returns the exit status. Raises `OSError` if output cannot be written."""
    if sys.stdout is None:
        return _refuse("there is no standard output", FAILED)
    if options.url is None and options.file is None and (warning := beyond(options.filter, config.detection.short_threshold_seconds)):
        tell(warning)
    log.setup(config.log.level, config.log.format)
    signals = Signals(_STOPS - {signal.SIGHUP} if hangup_is_ignored() else _STOPS)
    inbox = Inbox()
    source = _source(options, config, inbox, signals.wake)
    output = Output(sys.stdout.fileno(), sys.stdout.encoding)
    printer = Printer(options, inbox, output, signals.wake)
    try:
        source.start()
        printer.start()
        deadline = math.inf if options.duration_seconds is None else time.monotonic() + options.duration_seconds
        stop = _wait(signals, lambda: not printer.ended and source.failure is None and not source.finished, deadline, source.tick)
    except ModeUnavailable as reason:
        return _refuse(str(reason), BAD_USAGE)
    except StreamLost as lost:
        return _refuse(str(lost), FAILED)
    finally:
        source.stop()
    inbox.close()
    stop = stop or _wait(signals, lambda: not printer.ended, math.inf)
    printer.join(_LAST_LINES_SECONDS)
    if printer.failure is not None:
        raise printer.failure
    dropped = source.dropped + inbox.dropped()["slow"]
    if stop in {None, signal.SIGINT} and printer.ended and not options.sums_only and source.failure is None:
        summary = printer.summary.lines(dropped)
        if options.json:
            print(*summary, sep="\n", file=sys.stderr)  # noqa: T201
        else:
            output.print(summary)
    elif dropped:
        tell(f"{dropped} short processes are missing: they came faster than they could be read or printed")
    if source.failure is not None:
        return _refuse(source.failure, FAILED)
    return OK if stop is None else 128 + stop


def _source(options: Options, config: Config, inbox: Inbox, wake: Callable[[], None]) -> RecordSource:
    if options.file is not None:
        return Reading(History(options.file, options.since_ns, options.until_ns), inbox, tell, wake)
    return Watching(config, inbox, tell) if options.url is None else Following(options.url, inbox, tell, wake)


def tell(text: str) -> None:
    """Print a message to standard error."""
    if sys.stderr is not None:  # else print would use standard output
        print(f"shortproc-exporter: {one_line(text)}", file=sys.stderr)  # noqa: T201


def _refuse(reason: str, status: int) -> int:
    tell(f"error: {reason}")
    return status


def _wait(signals: Signals, goes_on: Callable[[], bool], deadline: float, tick: Callable[[], None] = lambda: None) -> signal.Signals | None:
    """Wait until a signal, the deadline or the end of `goes_on`. Returns the signal, or None."""
    while goes_on() and (left := deadline - time.monotonic()) > 0:
        if (received := signals.wait(min(left, _TICK_SECONDS))) is not None:
            return received
        tick()
    return None
