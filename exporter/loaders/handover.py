"""Passes descriptors from the child of a loader to the serving process.

Loading needs privileges and large libraries; reading needs neither. So the `main()` of each loader runs in a short-lived child, and sends
one message: JSON, with the descriptors attached (SCM_RIGHTS, unix(7)). Descriptors beyond the limit of a message are sent before it, in
messages that contain only `+`. Maps, programs and links exist as long as their descriptors.
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
_MAX_LOG = 1 << 20  # the log of the verifier can be much longer; its reason is at the end
_MORE = b"+"
_STOP_CHECK_SECONDS = 0.1
BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); name = sys.argv.pop(1); __import__(name); sys.modules[name].main()"
"""Runs `main()` of a module. Arguments: the directory that has the package, and the name of the module."""


def load(module: str, request: dict[str, Any], *, timeout: float, on_log: Callable[[str], None]) -> Handover:
    """Run `main()` of `module` in a child and return its descriptors; see `run`."""
    # -I: as root, import nothing from the working directory or the environment
    command = [sys.executable, "-I", "-c", BOOT, str(Path(__file__).parents[2]), module]
    return run(command, request, timeout=timeout, on_log=on_log)


def run(command: list[str], request: dict[str, Any], *, timeout: float, on_log: Callable[[str], None]) -> Handover:
    """Run a program, and return its descriptors. Its last arguments are the number of a socket and the request.

    Each line of its output is passed to `on_log`. Raises `ModeUnavailable` with the message or the exit status of the child.
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
    import subprocess  # noqa: PLC0415 - with a broker, the serving process only receives

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
    """Return a message with its descriptors; both are empty if the other side has closed.

    Raises `TimeoutError` after `seconds`, or if SIGTERM or SIGINT is pending: loading may take a minute. Another `OSError` means that the
    message has been read and is lost. Descriptors are closed in both cases.
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
    if message:  # some descriptors did not fit into our limit
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return b"", []


def discard(descriptors: Iterable[int]) -> None:
    """Close descriptors, which detaches or releases their objects."""
    for fd in descriptors:
        os.close(fd)


def from_answer(answer: dict[str, Any], descriptors: list[int]) -> Handover:
    """Return the handover in an answer. Raises `ModeUnavailable` if the answer is a refusal."""
    if "unavailable" in answer:
        raise ModeUnavailable(answer["unavailable"])
    given = iter(descriptors)
    maps = {name: BpfMap(next(given), *sizes) for name, sizes in answer["maps"].items()}
    programs = {name: next(given) for name in answer["programs"]}
    links = {name: next(given) for name in answer["links"]}
    return Handover(maps, programs, links, answer.get("facts", {}), list(islice(given, answer["buffers"])))


class Sender:
    """The child's side of a handover: collects descriptors, and sends them once."""

    def __init__(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the mask of the parent is inherited
        self._socket = socket.socket(fileno=int(sys.argv[1]))
        self.request: dict[str, Any] = json.loads(sys.argv[2])
        self.handover = Handover({}, {}, {})
        """To be filled by the loader."""

    def add_map(self, name: str, fd: int, key_size: int, value_size: int, *, per_cpu: bool) -> None:
        """Add a map. Sizes are those of the kernel, in bytes; in a per-CPU map, of the value of one CPU."""
        seen_size = (value_size + 7) // 8 * 8 * possible_cpus() if per_cpu else value_size
        self.handover.maps[name] = BpfMap(fd, key_size, seen_size)

    def send(self) -> None:
        """Send the handover."""
        send(self._socket, json.dumps(self.handover.manifest()).encode(), self.handover.descriptors())

    def refuse(self, reason: str) -> None:
        """Send the reason of a failure, as one sentence, instead of the handover."""
        with contextlib.suppress(BrokenPipeError):
            self._socket.send(json.dumps({"unavailable": reason}).encode())
