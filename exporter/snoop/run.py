"""Runs snoop: the main thread waits for signals while other threads observe and print."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable

from exporter.config.options import Config
from exporter.library.command import BAD_USAGE, FAILED, OK, observed, refuse, stop_signals, tell
from exporter.library.history import History
from exporter.library.processes import Ended, Records
from exporter.library.selection import beyond
from exporter.model import ModeUnavailable
from exporter.process import log
from exporter.process.signals import Signals
from exporter.snoop.flags import Options
from exporter.snoop.printer import Output, Printer
from exporter.snoop.reading import Reading

_TICK_SECONDS = 1.0
_LAST_LINES_SECONDS = 2.0
"""Time for the reader of the output to read the last lines after a signal."""


def main(options: Options, config: Config) -> int:
    """Print records until a signal, `--duration` or `--count`. Returns the exit status. Raises `OSError` if output cannot be written."""
    if sys.stdout is None:
        return refuse("there is no standard output", FAILED)
    if options.url is None and options.file is None and (warning := beyond(options.filter, config.detection.short_threshold_seconds)):
        tell(warning)
    log.setup(config.log.level, config.log.format)
    signals = stop_signals()
    history = None if options.file is None else History(options.file, options.since_ns, options.until_ns)
    records = _records(options, config, history)
    output = Output(sys.stdout.fileno(), sys.stdout.encoding)
    printer = Printer(options, records, output, signals.wake)
    try:
        with records:
            stop = _print(records, printer, signals, options.duration_seconds)
    except ModeUnavailable as reason:
        return refuse(str(reason), BAD_USAGE)
    except Ended as reason:
        return refuse(str(reason), FAILED)
    if printer.failure is not None:
        raise printer.failure
    if history is not None and history.damaged:
        tell(f"{history.damaged} lines or rows of the file are no records")
    _sum_up(options, printer, output, records, stop)
    if records.failure is not None:
        return refuse(records.failure, FAILED)
    return OK if stop is None else 128 + stop


def _sum_up(options: Options, printer: Printer, output: Output, records: Records, stop: signal.Signals | None) -> None:
    dropped = records.dropped
    if stop in {None, signal.SIGINT} and printer.ended and not options.sums_only and records.failure is None:
        summary = printer.summary.lines(dropped)
        if options.json:
            print(*summary, sep="\n", file=sys.stderr)  # noqa: T201
        else:
            output.print(summary)
    elif dropped:
        tell(f"{dropped} short processes are missing: they came faster than they could be read or printed")


def _print(records: Records, printer: Printer, signals: Signals, seconds: float | None) -> signal.Signals | None:
    """Print records until a signal, which it returns, for so long or until there are no more."""
    describe = _describing(records)
    describe()
    printer.start()
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    stop = _wait(signals, lambda: not printer.ended, deadline, describe)
    records.stop()
    stop = stop or _wait(signals, lambda: not printer.ended, math.inf)
    printer.join(_LAST_LINES_SECONDS)
    return stop


def _records(options: Options, config: Config, history: History | None) -> Records:
    if history is not None:
        return Reading(history, options.filter)
    return observed(options.url, config, options.filter)


def _describing(records: Records) -> Callable[[], None]:
    """Return a function that tells how the records are observed, if that has changed."""
    told = [""]

    def describe() -> None:
        if (description := records.description) != told[-1]:
            told[:] = [description]
            tell(description)

    return describe


def _wait(signals: Signals, goes_on: Callable[[], bool], deadline: float, tick: Callable[[], None] = lambda: None) -> signal.Signals | None:
    """Wait until a signal, the deadline or the end of `goes_on`. Returns the signal, or None."""
    while goes_on() and (left := deadline - time.monotonic()) > 0:
        if (received := signals.wait(min(left, _TICK_SECONDS))) is not None:
            return received
        tick()
    return None
