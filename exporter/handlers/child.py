"""The process that runs filters, handlers and sinks. It has a pipe with records, memory files for what it counts, and no privileges."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import select
import signal
import sys
import time
from typing import Any

from exporter.handlers import loading, privileges, registries
from exporter.handlers.slot import Slot
from exporter.handlers.wire import Content, Frames, PageWriter, count_kinds
from exporter.process import log
from exporter.process.log import fields
from exporter.process.rate_limited_log import RateLimitedLog

logger = logging.getLogger(__name__)

_CHUNK = 256 * 1024
_TICK_SECONDS = 1.0


def main() -> None:
    """Run until the exporter closes the pipe, then finish."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Only the end of the pipe stops it. A function, since programs that handlers start would inherit SIG_IGN
        signal.signal(ignored, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    pipe, page_fd, metrics_fd = map(int, sys.argv[1:4])
    spec = json.load(sys.stdin)
    _redirect_stdin_and_stdout()
    log.setup(*spec["log"])
    sys.dont_write_bytecode = True
    planned = spec["handlers"]
    sys.path.remove(spec["root"])  # the package is imported; other files in its directory are not handlers
    for each in planned:
        if each["target"].startswith(loading.BUILT_IN):  # another user may not be able to read it
            with contextlib.suppress(ImportError):  # the slot tries again, and logs it
                importlib.import_module(each["target"].partition(":")[0])
    try:
        privileges.drop(spec["user"], spec["group"], spec["exporter"])
    except OSError as error:
        logger.error("cannot drop privileges; handlers don't run", extra=fields(error=error))  # noqa: TRY400
        sys.exit(1)
    log.in_background()
    modules = [each["target"].partition(":")[0] for each in planned]
    folders = [folder for each in planned for folder in each["path"]]
    own = [module for module in modules if not f"{module}.".startswith(loading.BUILT_IN)]
    sys.meta_path.insert(0, loading.ImportGuard(own, folders, spec["owners"], spec["root"]))
    page = PageWriter(page_fd, len(planned))
    slots = [Slot(number, each, page) for number, each in enumerate(planned)]
    _run(pipe, page, slots, _Metrics(slots, metrics_fd))
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    log.finish()
    os._exit(0)  # don't wait for threads of handlers


class _Metrics:
    """The metrics of all handlers' registries."""

    def __init__(self, slots: list[Slot], fd: int) -> None:
        self._slots = slots
        self._writer = registries.RegistriesWriter(fd)
        self._written = registries.Registries()
        self._log = RateLimitedLog(logger)

    def publish(self) -> None:
        """Write them, if they have changed."""
        found, problems = registries.checked(family for slot in self._slots for family in slot.collect())
        if problems:
            self._log.warning("handlers' metrics are not shown", reason=problems[0], metrics=len(problems))
        if found != self._written:
            self._writer.write(found)
            self._written = found


def _run(pipe: int, page: PageWriter, slots: list[Slot], metrics: _Metrics) -> None:
    for slot in slots:
        slot.start()
    frames = Frames()
    poller = select.poll()
    poller.register(pipe, select.POLLIN)
    due = time.monotonic() + _TICK_SECONDS
    while True:
        if poller.poll(max(0.0, due - time.monotonic()) * 1000):
            data = os.read(pipe, _CHUNK)
            if not data:
                break
            for batch, content in frames.feed(data):
                _handle(batch, content, slots, page)
        if time.monotonic() >= due:
            for slot in slots:
                slot.tick()
            metrics.publish()
            due = time.monotonic() + _TICK_SECONDS
    for slot in slots:
        slot.close()


def _handle(batch: list[Any], content: Content, slots: list[Slot], page: PageWriter) -> None:
    if content is Content.EVENTS:
        for slot in slots:
            slot.handle_events(batch)
        page.events_done(count_kinds(batch))
    else:
        for slot in slots:
            slot.handle(batch, at_once=content is Content.AT_ONCE)
        page.done(len(batch))


def _redirect_stdin_and_stdout() -> None:
    """Read from /dev/null, and print to the log."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
