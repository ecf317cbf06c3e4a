"""Runs top: one thread draws, reads keys and takes records."""

from __future__ import annotations

import platform
import select
import signal
import sys
import time
from dataclasses import replace
from urllib.parse import urlsplit

from exporter.config.options import Config
from exporter.config.problems import one_line
from exporter.library.command import BAD_USAGE, FAILED, OK, observed, refuse, stop_signals, tell
from exporter.library.processes import Ended, Processes
from exporter.library.selection import beyond
from exporter.model import ModeUnavailable
from exporter.process import log
from exporter.process.signals import Signals
from exporter.top.flags import Options
from exporter.top.state import State, pressed
from exporter.top.view import Scene, picture, table
from exporter.top.watching import Watching

_DRAW_SECONDS = 1.0


def main(options: Options, config: Config) -> int:
    """Show short processes until `q` or a signal. Returns the exit status. Raises `OSError` if output cannot be written."""
    if not options.once and not (sys.stdin and sys.stdin.isatty() and sys.stdout and sys.stdout.isatty()):
        return refuse("top needs a terminal; --once prints a table without", BAD_USAGE)
    if options.url is None and (warning := beyond(options.filter, config.detection.short_threshold_seconds)):
        tell(warning)
    log.setup(config.log.level, config.log.format)
    signals = stop_signals()
    processes = observed(options.url, config, options.filter)
    host = platform.node() if options.url is None else urlsplit(options.url).netloc.rpartition("@")[2]
    try:
        with processes:
            watching = Watching(processes, one_line(host))
            watching.start()
            try:
                stop = _once(options, processes, watching, signals) if options.once else _interact(options, processes, watching, signals)
            finally:
                watching.stop()
    except ModeUnavailable as reason:
        return refuse(str(reason), BAD_USAGE)
    except Ended as reason:
        return refuse(str(reason), FAILED)
    return OK if stop in {None, signal.SIGINT} else 128 + stop


def _once(options: Options, processes: Processes, watching: Watching, signals: Signals) -> signal.Signals | None:
    """Observe for a while, then print the table."""
    until = time.monotonic() + options.duration_seconds
    stop = None
    while stop is None and (left := until - time.monotonic()) > 0 and _wait(processes, watching, signals, left):
        stop = signals.wait(0)
    if processes.failure is not None:
        raise Ended(processes.failure)
    state = State(by=options.by, sort=options.sort, window=None)
    for line in table(watching.scene(), state, options.count):
        print(line)  # noqa: T201
    if processes.dropped:
        tell(f"{processes.dropped} short processes are missing: they came faster than they were read")
    return stop


def _interact(options: Options, processes: Processes, watching: Watching, signals: Signals) -> signal.Signals | None:
    """Draw, and do what keys ask for, until `q` or a signal, which it returns."""
    from exporter.top.screen import Screen  # noqa: PLC0415 - curses is not needed for --once, and missing in small installations

    state, stop, due = State(by=options.by, sort=options.sort), None, 0.0
    frozen: Scene | None = None

    def use(key: str) -> None:
        nonlocal state, due
        state, due = pressed(state, key), 0.0

    with Screen() as screen:
        while stop is None and not state.quits:
            screen.keys(use)
            if not state.paused:
                frozen = None
            elif frozen is None:
                frozen = watching.frozen()
            if time.monotonic() >= due:
                shown = picture(frozen or watching.scene(), state, *screen.size())
                screen.draw(shown.lines)
                state = replace(state, first=shown.first)
                due = time.monotonic() + _DRAW_SECONDS
            if not _wait(processes, watching, signals, max(0.0, due - time.monotonic()), sys.stdin.fileno()):
                break
            stop = signals.wait(0)
    if processes.failure is not None:
        raise Ended(processes.failure)
    return stop


def _wait(processes: Processes, watching: Watching, signals: Signals, seconds: float, *fds: int) -> bool:
    """Wait until records, a signal, or input; then take the records. Returns whether more may come."""
    select.select([processes.fileno(), signals.fileno(), *fds], [], [], seconds)
    return watching.collect()
