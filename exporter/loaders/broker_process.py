"""The process of the broker. It lives as long as the exporter, so it imports almost nothing, and needs a third of the memory for it.

It answers requests of the serving process, in order:

- `load MODE` and `probe MODE`, of a mode that was named at the start. A child answers (`broker_worker`), so its memory is freed afterwards.
- `containers ID ID ...`, with their names. Answered here: there may be one each second. From the first one on, new containers are watched.

No other part of a request reaches a child. It exits when the serving process has closed the socket, or exited. SIGTERM, SIGINT and SIGHUP
stay blocked as in the serving process, which handles them.
"""

from __future__ import annotations

import _socket  # `socket` and `signal` without their enumerations, which take a MiB
import os
import select
import sys

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.loaders.container_watch import ContainerWatch

ANSWERED = b"answered"
"""The last message of a child, just before its answer. Others are closing messages, with a copy of the socket and its lease."""
_MAX_MESSAGE = 4096
_TWO_DESCRIPTORS = _socket.CMSG_SPACE(8)


def main() -> None:
    """Answer requests. Arguments: number of the socket, the modes that can be loaded, the command of the child."""
    requests = int(sys.argv[1])
    os.closerange(3, requests)  # what this exporter has inherited
    os.closerange(requests + 1, os.sysconf("SC_OPEN_MAX"))
    BrokerProcess(_socket.socket(fileno=requests), sys.argv[2].split(), sys.argv[3:]).run()


class BrokerProcess:
    def __init__(self, requests: _socket.socket, modes: Sequence[str], worker: Sequence[str], root: str = "") -> None:
        """`worker`: command of the child; the numbers of two sockets and the request are added to it. `root`: see `ContainerState`."""
        self._requests = requests
        self._modes = modes
        self._worker = worker
        self._root = root
        self._leases: dict[int, _Lease] = {}
        self._containers: ContainerWatch | None = None

    def run(self) -> None:
        """Answer requests until the other side closes the socket. Then end all leases."""
        try:
            while request := self._next_request():
                self._answer(request)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it closed the socket while we answered
        finally:
            self._requests.close()
            for lease in self._leases.values():
                lease.end()

    def _next_request(self) -> bytes:
        """Wait for the next request, and end the leases that the serving process gives up. Empty if it has closed the socket."""
        while True:
            containers = self._containers
            waiting = [self._requests.fileno(), *self._leases, *(() if containers is None else containers.descriptors)]
            ready = select.select(waiting, [], [], None if containers is None else containers.timeout)[0]
            if waiting[0] in ready:
                return self._requests.recv(_MAX_MESSAGE)
            for fd in self._leases.keys() & ready:
                self._leases.pop(fd).end()
            if containers is not None:
                containers.read_new()

    def _answer(self, request: bytes) -> None:
        verb, *words = request.decode(errors="replace").split() or [""]
        try:
            if verb == "containers":
                self._requests.send(self._container_names(words))
            elif verb not in ("load", "probe") or len(words) != 1 or not (words[0].isascii() and words[0].isidentifier()):
                self._refuse("the broker does not understand the request")
            elif words[0] not in self._modes:
                self._refuse(f"{words[0]} has no loader")
            elif not self._child_answers(verb, words[0]):
                self._refuse("the loader exited before it had answered")
        except (BrokenPipeError, ConnectionResetError):
            raise
        except OSError as error:  # e.g. too many open files. The broker must continue: it cannot be restarted without privileges
            self._requests.send(b'{"log": [], "shortage": %d}' % (error.errno or 0))
        except ImportError:  # for the same reason
            self._refuse("the broker cannot open its own files now")

    def _refuse(self, reason: str) -> None:
        self._requests.send(f'{{"log": [], "unavailable": "{reason}"}}'.encode())

    def _container_names(self, ids: list[str]) -> bytes:
        if self._containers is None:
            from exporter.loaders.container_watch import ContainerWatch  # noqa: PLC0415 - most hosts have no containers

            self._containers = ContainerWatch(self._root)
        return self._containers.answer(ids)

    def _child_answers(self, verb: str, mode: str) -> bool:
        """Let a child answer a request. Returns False if it exited before."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        try:
            os.set_inheritable(theirs.fileno(), True)
            command = [*self._worker, str(self._requests.fileno()), str(theirs.fileno()), verb, mode]
            child = os.posix_spawn(sys.executable, command, os.environ)
            theirs.close()
            answered = self._take_leases(ours)
            os.waitpid(child, 0)
        finally:
            ours.close()
            theirs.close()
        return answered

    def _take_leases(self, child: _socket.socket) -> bool:
        """Keep the leases that the child hands over until it exits, and return whether it has answered."""
        answered = False
        while True:
            message, ancillary, _, _ = child.recvmsg(_MAX_MESSAGE, _TWO_DESCRIPTORS, _socket.MSG_CMSG_CLOEXEC)
            if not message:
                return answered
            answered = answered or message == ANSWERED
            descriptors = [fd for _, _, data in ancillary for fd in memoryview(data[: len(data) // 4 * 4]).cast("i")]
            if len(descriptors) == 2:
                link, lease = (_socket.socket(fileno=fd) for fd in descriptors)
                self._leases[lease.fileno()] = _Lease(lease, link, message)
            else:  # none, or no more may be open here
                for fd in descriptors:
                    os.close(fd)


class _Lease:
    """A copy of a socket that the serving process reads. When that closes its end, or exits, a closing message is sent through the copy."""

    def __init__(self, ours: _socket.socket, link: _socket.socket, closing_message: bytes) -> None:
        self._ours = ours
        self._link = link
        self._closing_message = closing_message

    def end(self) -> None:
        """Send the closing message, and close both."""
        try:
            self._link.send(self._closing_message)
        except OSError:
            pass  # the socket has failed
        finally:
            self._link.close()
            self._ours.close()
