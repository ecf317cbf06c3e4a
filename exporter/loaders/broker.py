"""The broker: a small process that keeps the privileges, so that the serving process can drop them and still switch modes.

It starts before the privileges are dropped, and exits with the process that started it. What it loads, and how, is fixed then. A request
names a mode, or ids of containers; see `broker_process`. An answer carries file descriptors (SCM_RIGHTS, unix(7)).
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exporter.kernel.attached import Handover
from exporter.loaders.base import Settings, log_line
from exporter.loaders.handover import BOOT, discard, from_answer, receive
from exporter.model import Mode, ModeUnavailable
from exporter.model.owner import ContainerName
from exporter.process.log import fields
from exporter.process.shortage import describe

logger = logging.getLogger(__name__)

_ANSWER_SECONDS = 70
"""Longer than the timeout of every loader."""
_LATE_SECONDS = 1.0
_END_SECONDS = 1.0
_POLL_SECONDS = 0.01
_NAMES_SECONDS = 5.0
_NAMES_WAIT_SECONDS = 1.0


class Broker:
    """The `Loader` of the serving process."""

    def __init__(self, settings: Settings) -> None:
        """Start the broker with the current privileges. Raises `OSError`."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            python, root, package = sys.executable, str(Path(__file__).parents[2]), __name__
            worker = [python, "-I", "-c", BOOT, root, f"{package}_worker", settings.to_json()]
            # -S: without the paths and hooks of `site`, which take a MiB
            command = [
                python,
                "-I",
                "-S",
                "-c",
                BOOT,
                root,
                f"{package}_process",
                str(theirs.fileno()),
                " ".join(settings.modules),
                *worker,
            ]
            nothing = os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0
            os.set_inheritable(theirs.fileno(), True)
            self.pid = os.posix_spawn(python, command, os.environ, file_actions=[nothing])
        self._pending_answers = 0
        """Answers that have not arrived. The broker sends one for each request, in order."""
        self._lock = threading.Lock()
        """Held from a request to its answer."""

    def load(self, mode: Mode) -> Handover:
        return from_answer(*self._ask("load", mode))

    def probe(self, mode: Mode) -> None:
        self._ask("probe", mode)

    def container_names(self, ids: Sequence[str]) -> dict[str, ContainerName]:
        """Return the names of containers that their runtimes keep, by id; of at most 32, and only those that are known.

        May block for 6 s. While a mode is loaded, nothing is known.
        """
        if not self._lock.acquire(timeout=_NAMES_WAIT_SECONDS):
            return {}
        try:
            answer, _ = self._exchange(["containers", *ids], _NAMES_SECONDS)
        except ModeUnavailable:
            return {}
        finally:
            self._lock.release()
        return {container_id: ContainerName(*name) for container_id, name in answer.get("containers", {}).items()}

    def close(self) -> None:
        """Close the socket, upon which the broker exits. Without privileges this process cannot kill it."""
        self._socket.close()
        deadline = time.monotonic() + _END_SECONDS
        while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            if time.monotonic() >= deadline:
                return logger.warning("broker has not exited yet; it exits by itself", extra=fields(pid=self.pid))
            time.sleep(_POLL_SECONDS)
        return None

    def _ask(self, verb: str, mode: Mode) -> tuple[dict[str, Any], list[int]]:
        with self._lock:
            return self._exchange([verb, mode], _ANSWER_SECONDS)

    def _exchange(self, request: Sequence[str], seconds: float) -> tuple[dict[str, Any], list[int]]:
        try:
            while self._pending_answers:  # to requests that timed out
                discard(self._answer(_LATE_SECONDS)[1])
            self._socket.send(" ".join(request).encode())
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
        if number := answer.get("shortage"):
            raise ModeUnavailable(f"the broker cannot load it now: {describe(OSError(number, os.strerror(number)))}")
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
