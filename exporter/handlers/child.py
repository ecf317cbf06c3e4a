"""The process that runs filters, handlers and sinks. It has a pipe of records and a page for counters, and no other power."""

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

from exporter.handlers import loading, privileges
from exporter.handlers.slot import Slot
from exporter.handlers.wire import Frames, PageWriter
from exporter.process import log
from exporter.process.log import fields

logger = logging.getLogger(__name__)

_CHUNK = 256 * 1024
_TICK_SECONDS = 1.0


def main() -> None:
    """Run until the exporter closes the pipe, then finish."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, lambda *_: None)  # the end of the pipe is the end; a program that a handler starts doesn't inherit this
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    pipe, page_fd = map(int, sys.argv[1:3])
    spec = json.load(sys.stdin)
    _turn_stdin_and_stdout()
    log.setup(*spec["log"])
    sys.dont_write_bytecode = True
    planned = spec["handlers"]
    sys.path.remove(spec["root"])  # the package is found; what lies beside it is nobody's handler
    for each in planned:
        if each["target"].startswith(loading.BUILT_IN):  # may be out of reach for another user
            importlib.import_module(each["target"].partition(":")[0])
    try:
        privileges.drop(spec["user"], spec["group"], spec["exporter"])
    except OSError as error:
        logger.error("handlers don't run: privileges can't be dropped", extra=fields(error=error))  # noqa: TRY400
        sys.exit(1)
    modules = [each["target"].partition(":")[0] for each in planned]
    folders = [folder for each in planned for folder in each["path"]]
    own = [module for module in modules if not f"{module}.".startswith(loading.BUILT_IN)]
    sys.meta_path.insert(0, loading.ImportGuard(own, folders, spec["owners"]))
    page = PageWriter(page_fd, len(planned))
    slots = [Slot(number, each, page) for number, each in enumerate(planned)]
    _run(pipe, page, slots)
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(0)  # a handler's thread can't keep the process


def _run(pipe: int, page: PageWriter, slots: list[Slot]) -> None:
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
            for batch in frames.feed(data):
                for slot in slots:
                    slot.take(batch)
                page.done(len(batch))
        if time.monotonic() >= due:
            for slot in slots:
                slot.tick()
            due = time.monotonic() + _TICK_SECONDS
    for slot in slots:
        slot.close()


def _turn_stdin_and_stdout() -> None:
    """Nothing to read, and what a handler prints goes where the log does."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
