"""The broker: a small process that keeps the privileges, so that the serving process can drop them and still switch modes.

It starts before the privileges are dropped. There are two kinds of requests. One has the name of a mode, and whether only to probe it. The
loader of each mode is fixed at start. The answer carries file descriptors (SCM_RIGHTS, unix(7)). The other has ids of containers, and is
answered with their names. The broker exits with the process that started it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exporter.kernel.attached import LEASE, Handover
from exporter.loaders.base import Settings, log_line
from exporter.loaders.direct import Direct
from exporter.loaders.handover import BOOT, discard, from_answer, receive, send
from exporter.model import Mode, ModeUnavailable
from exporter.model.owner import ContainerName
from exporter.process.log import fields
from exporter.process.shortage import describe

logger = logging.getLogger(__name__)

_ANSWER_SECONDS = 70
"""Longer than the timeout of every loader."""
_LATE_SECONDS = 1.0
_END_SECONDS = 1.0
_LOG_BYTES = 30_000
_NAMES_SECONDS = 5.0
_NAMES_WAIT_SECONDS = 1.0
_NAMES_BYTES = 30_000


class Broker:
    """The `Loader` of the serving process."""

    def __init__(self, settings: Settings) -> None:
        """Start the broker with the current privileges. Raises `OSError`."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            boot = [sys.executable, "-I", "-c", BOOT, str(Path(__file__).parents[2]), __name__]
            command = [*boot, str(theirs.fileno()), settings.to_json()]
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])  # noqa: S603
        self._pending_answers = 0
        """Answers that have not arrived. The broker sends one for each request, in order."""
        self._lock = threading.Lock()
        """Held from a request to its answer."""

    @property
    def pid(self) -> int:
        """Return the PID of the broker."""
        return self._child.pid

    def load(self, mode: Mode) -> Handover:
        return from_answer(*self._ask(mode))

    def probe(self, mode: Mode) -> None:
        self._ask(mode, probe=True)

    def container_names(self, ids: Sequence[str]) -> dict[str, ContainerName]:
        """Return the names of containers that their runtimes keep, by id; of at most 32, and only those that are known.

        May block for 6 s. While a mode is loaded, nothing is known.
        """
        if not self._lock.acquire(timeout=_NAMES_WAIT_SECONDS):
            return {}
        try:
            answer, _ = self._exchange({"containers": list(ids)}, _NAMES_SECONDS)
        except ModeUnavailable:
            return {}
        finally:
            self._lock.release()
        return {container_id: ContainerName(*name) for container_id, name in answer.get("containers", {}).items()}

    def close(self) -> None:
        """Close the socket, upon which the broker exits. Without privileges this process cannot kill it."""
        self._socket.close()
        try:
            self._child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            logger.warning("broker has not exited yet; it exits by itself", extra=fields(pid=self.pid))

    def _ask(self, mode: Mode, *, probe: bool = False) -> tuple[dict[str, Any], list[int]]:
        with self._lock:
            return self._exchange({"load": mode, "probe": probe}, _ANSWER_SECONDS)

    def _exchange(self, request: dict[str, Any], seconds: float) -> tuple[dict[str, Any], list[int]]:
        try:
            while self._pending_answers:  # to requests that timed out
                discard(self._answer(_LATE_SECONDS)[1])
            self._socket.send(json.dumps(request).encode())
            self._pending_answers += 1
            message, descriptors = self._answer(seconds)
        except TimeoutError as late:
            raise ModeUnavailable(f"the broker did not answer {late}: restart the exporter") from late
        except OSError as error:
            raise ModeUnavailable(f"the broker does not answer ({describe(error)}): restart the exporter") from error
        if not message:
            raise ModeUnavailable("the broker has exited: restart the exporter")
        answer: dict[str, Any] = json.loads(message)
        for line in answer["log"]:
            log_line(line)
        if "unavailable" in answer:
            raise ModeUnavailable(answer["unavailable"])
        return answer, descriptors

    def _answer(self, seconds: float) -> tuple[bytes, list[int]]:
        self._pending_answers -= 1
        try:
            return receive(self._socket, seconds)
        except TimeoutError:
            self._pending_answers += 1
            raise


def main() -> None:
    """Run the broker."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to the whole process group; the parent handles them
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    serve(socket.socket(fileno=int(sys.argv[1])), Settings.from_json(sys.argv[2]))


def serve(ours: socket.socket, settings: Settings) -> None:
    """Answer requests until the other side closes the socket."""
    loader = Direct(settings)
    log = _Lines()
    logging.getLogger().addHandler(log)
    logging.getLogger().setLevel(logging.DEBUG)
    with ours, contextlib.closing(_Leases()) as leases, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while request := leases.next_request(ours):
            log.lines.clear()
            with contextlib.ExitStack() as held:
                answer, descriptors = _answered(loader, request, leases, held)
                message = json.dumps(answer | {"log": log.capped()}).encode()
                send(ours, message, descriptors)


class _Leases:
    """Sockets read by the serving process. When it closes one, or exits, its closing message is sent through our copy."""

    def __init__(self) -> None:
        self._leases: dict[socket.socket, tuple[socket.socket, bytes]] = {}

    def give(self, handover: Handover) -> None:
        """Add a lease for each link with a closing message. The serving process keeps it open while it reads the link."""
        for name, closing_message in handover.closing_messages.items():
            copy = socket.socket(fileno=os.dup(handover.links[name]))
            ours, theirs = socket.socketpair()
            self._leases[ours] = copy, closing_message
            handover.links[name + LEASE] = theirs.detach()

    def next_request(self, requests: socket.socket) -> bytes:
        """Wait for the next request; empty if the other side has closed the socket."""
        while requests not in (ready := select.select([requests, *self._leases], [], [])[0]):
            for lease in ready:
                self._end(lease)
        return requests.recv(4096)

    def close(self) -> None:
        """Send all closing messages."""
        for lease in list(self._leases):
            self._end(lease)

    def _end(self, lease: socket.socket) -> None:
        sock, closing_message = self._leases.pop(lease)
        with lease, sock, contextlib.suppress(OSError):  # the socket has failed
            sock.send(closing_message)


def _answered(loader: Direct, message: bytes, leases: _Leases, held: contextlib.ExitStack) -> tuple[dict[str, Any], list[int]]:
    """Return the answer and its descriptors. `held` closes our copies after they were sent."""
    try:
        request = json.loads(message)
        if "containers" in request:
            return {"containers": _fitting(loader.container_names(request["containers"]))}, []
        mode = Mode(request["load"])
        if request["probe"]:
            loader.probe(mode)
            return {}, []
        handover = loader.load(mode)
        held.callback(handover.close)
        leases.give(handover)
        return handover.manifest(), handover.descriptors()
    except ModeUnavailable as reason:
        return {"unavailable": str(reason)}, []
    except OSError as error:  # e.g. too many open files. The broker must continue: it cannot be restarted without privileges
        return {"unavailable": f"the broker cannot load it now: {describe(error)}"}, []
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        return {"unavailable": f"the broker does not understand the request: {error!r}"}, []


def _fitting(names: dict[str, ContainerName]) -> dict[str, ContainerName]:
    """Return as many names as fit into an answer; the others are asked for again."""
    fitting: dict[str, ContainerName] = {}
    left = _NAMES_BYTES
    for container_id, name in names.items():
        left -= len(json.dumps([container_id, name]))
        if left < 0:
            break
        fitting[container_id] = name
    return fitting


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
