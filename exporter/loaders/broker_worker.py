"""The child of the broker that answers one request: it loads or probes a mode."""

from __future__ import annotations

import array
import contextlib
import json
import logging
import signal
import socket
import sys
from typing import Any

from exporter.kernel.attached import LEASE, Handover
from exporter.loaders.base import Settings
from exporter.loaders.broker_process import ANSWERED
from exporter.loaders.direct import Direct
from exporter.loaders.handover import send
from exporter.model import Mode, ModeUnavailable
from exporter.process.shortage import describe

_LOG_BYTES = 30_000


def main() -> None:
    """Answer. Arguments: the settings; numbers of the socket to the serving process and of that to the broker; verb and mode."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to the whole process group; the serving process handles them
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    settings, requests, broker, verb, mode = sys.argv[1:]
    gone = contextlib.suppress(BrokenPipeError, ConnectionResetError)  # the serving process has exited meanwhile
    with socket.socket(fileno=int(requests)) as serving, socket.socket(fileno=int(broker)) as keeper, gone:
        answer(serving, keeper, Direct(Settings.from_json(settings)), verb, Mode(mode))


def answer(serving: socket.socket, broker: socket.socket, loader: Direct, verb: str, mode: Mode) -> None:
    """Send one answer to the serving process, after leases to the broker, which keeps them. Raises `OSError` if either has exited."""
    log = _Lines()
    logging.getLogger().addHandler(log)
    logging.getLogger().setLevel(logging.DEBUG)
    handover, found = Handover(), dict[str, Any]()
    try:
        if verb == "probe":
            loader.probe(mode)
        else:
            handover = loader.load(mode)
            _lease(handover, broker)
            found = handover.manifest()
    except ModeUnavailable as reason:
        found = {"unavailable": str(reason)}
    except OSError as error:  # e.g. too many open files
        handover.close()
        found = {"unavailable": f"the broker cannot load it now: {describe(error)}"}
    broker.send(ANSWERED)
    send(serving, json.dumps(found | {"log": log.capped()}).encode(), handover.descriptors())


def _lease(handover: Handover, broker: socket.socket) -> None:
    """Add a lease for each link with a closing message. The serving process keeps it open while it reads the link."""
    for name, closing_message in handover.closing_messages.items():
        ours, theirs = socket.socketpair()
        handover.links[name + LEASE] = theirs.detach()
        with ours:
            rights = array.array("i", [handover.links[name], ours.fileno()])
            broker.sendmsg([closing_message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        note = "note: " if record.levelno >= logging.WARNING else ""
        self.lines.append(note + record.getMessage())

    def capped(self) -> list[str]:
        """Return the last lines, as many as fit into a message."""
        kept: list[str] = []
        left = _LOG_BYTES
        for line in reversed(self.lines):
            left -= len(json.dumps(line)) + 2
            if left < 0:
                break
            kept.append(line)
        return kept[::-1]
