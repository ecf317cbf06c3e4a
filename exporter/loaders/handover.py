"""Passes descriptors from the child of a loader to the serving process.

Loading needs privileges and heavy libraries; reading needs neither. So each loader is a module whose `main()` runs in a short-lived child,
does its work, and sends one message: JSON, with the descriptors attached (SCM_RIGHTS, unix(7)). Descriptors beyond the limit of one message
are sent before it, in messages that are only a `+`. Maps, programs and links live as long as the descriptors.
"""

from __future__ import annotations

import array
import contextlib
import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from exporter.kernel.attached import Handover
from exporter.kernel.bpf import BpfMap, possible_cpus
from exporter.model import ModeUnavailable
from exporter.process.shortage import describe, file_limit_advice
from exporter.process.signals import stop_is_pending

MAX_MESSAGE = 64 * 1024
_MAX_DESCRIPTORS = 250  # SCM_MAX_FD is 253
_MAX_LOG = 1 << 20  # the log of the verifier can be many times that, with its reason at the end
_MORE = b"+"
_STOP_CHECK_SECONDS = 0.1
BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); import importlib; importlib.import_module(sys.argv.pop(1)).main()"


def load(module: str, request: dict[str, Any], *, timeout: float, on_log: Callable[[str], None]) -> Handover:
    """Run `main()` of `module` in a child and return its descriptors; see `run`."""
    # -I: nothing is imported from the working directory or the environment, for this runs as root
    command = [sys.executable, "-I", "-c", BOOT, str(Path(__file__).parents[2]), module]
    return run(command, request, timeout=timeout, on_log=on_log)


def run(command: list[str], request: dict[str, Any], *, timeout: float, on_log: Callable[[str], None]) -> Handover:
    """Run a program with the number of a socket and the request as its last arguments, and return its descriptors.

    Its output goes to `on_log`, line by line. Raises `ModeUnavailable` with the message of the child, or with its exit status.
    """
    try:
        return _run(command, request, timeout, on_log)
    except OSError as error:
        raise ModeUnavailable(f"cannot run the loader: {describe(error)}") from error
    except ModeUnavailable as refusal:
        if hint := file_limit_advice():
            raise ModeUnavailable(f"{hint}; {refusal}") from refusal
        raise


def _run(command: list[str], request: dict[str, Any], timeout: float, on_log: Callable[[str], None]) -> Handover:
    descriptors: list[int] = []
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    log = os.memfd_create("loader-log")
    whole = [*command, str(theirs.fileno()), json.dumps(request)]
    with ours, theirs, os.fdopen(log, "rb") as log_file:
        child = subprocess.Popen(whole, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[theirs.fileno()])  # noqa: S603
        try:
            theirs.close()
            message, descriptors = receive(ours, timeout)
            child.wait(timeout)
        except TimeoutError as late:
            raise ModeUnavailable(f"the loader did not answer {late}: the host may be overloaded") from late
        except subprocess.TimeoutExpired as late:
            discard(descriptors)
            raise ModeUnavailable(f"the loader answered, but did not exit within {timeout:g} s: the host may be overloaded") from late
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
            log_file.seek(max(0, log_file.seek(0, os.SEEK_END) - _MAX_LOG))
            for line in log_file.read(_MAX_LOG).decode(errors="replace").splitlines():
                on_log(line)
    if not message:
        raise ModeUnavailable(f"the loader exited with status {child.returncode} before it had finished")
    return from_answer(json.loads(message), descriptors)


def send(ours: socket.socket, message: bytes, descriptors: list[int]) -> None:
    """Send a message with descriptors, for `receive`. Raises `OSError`."""
    while True:
        some, descriptors = array.array("i", descriptors[:_MAX_DESCRIPTORS]), descriptors[_MAX_DESCRIPTORS:]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, some)] if some else []
        ours.sendmsg([_MORE if descriptors else message], rights)
        if not descriptors:
            return


def receive(ours: socket.socket, seconds: float) -> tuple[bytes, list[int]]:
    """One message with its descriptors; both empty where the other side has gone.

    Raises `OSError`, and then has kept none. If it is no `TimeoutError`, the message is done with. Its time is over, too, when this process
    is told to stop: loading may take a minute, and the other side may stand still.
    """
    descriptors = array.array("i")
    message, cut = _MORE, 0
    deadline = time.monotonic() + seconds
    poll = select.poll()
    poll.register(ours, select.POLLIN)
    try:
        while message == _MORE:
            while not poll.poll(_STOP_CHECK_SECONDS * 1000):
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"within {seconds:g} s")
                if stop_is_pending():
                    raise TimeoutError("before this process was told to stop")
            message, ancillary, flags, _ = ours.recvmsg(MAX_MESSAGE, socket.CMSG_SPACE(_MAX_DESCRIPTORS * 4), socket.MSG_CMSG_CLOEXEC)
            cut |= flags & socket.MSG_CTRUNC
            for level, kind, data in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    except OSError:
        discard(descriptors)
        raise
    if message and not cut:
        return message, list(descriptors)
    discard(descriptors)
    if message:  # those that came are not all
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return b"", []


def discard(descriptors: Iterable[int]) -> None:
    """Close descriptors, and so detach or release what they hold."""
    for fd in descriptors:
        os.close(fd)


def from_answer(answer: dict[str, Any], descriptors: list[int]) -> Handover:
    if "unavailable" in answer:
        raise ModeUnavailable(answer["unavailable"])
    given = iter(descriptors)
    maps = {name: BpfMap(next(given), *sizes) for name, sizes in answer["maps"].items()}
    programs = {name: next(given) for name in answer["programs"]}
    links = {name: next(given) for name in answer["links"]}
    return Handover(maps, programs, links, answer.get("facts", {}), list(islice(given, answer["buffers"])))


class Sender:
    """The side of the child: collects descriptors, and sends them once."""

    def __init__(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # it inherited the parent's mask, and must react to signals
        self._socket = socket.socket(fileno=int(sys.argv[1]))
        self.request: dict[str, Any] = json.loads(sys.argv[2])
        self.handover = Handover({}, {}, {})
        """To be filled. A link is any descriptor whose close ends an attachment."""

    def add_map(self, name: str, fd: int, key_size: int, value_size: int, *, per_cpu: bool) -> None:
        seen_size = (value_size + 7) // 8 * 8 * possible_cpus() if per_cpu else value_size
        self.handover.maps[name] = BpfMap(fd, key_size, seen_size)

    def send(self) -> None:
        """Hand everything over."""
        send(self._socket, json.dumps(self.handover.manifest()).encode(), self.handover.descriptors())

    def refuse(self, reason: str) -> None:
        """Send the reason of a failure, in one sentence."""
        with contextlib.suppress(BrokenPipeError):
            self._socket.send(json.dumps({"unavailable": reason}).encode())
