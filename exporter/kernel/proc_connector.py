"""The proc connector of the kernel: an event for each fork, exec, rename and exit.

Layouts: include/uapi/linux/{netlink,connector,cn_proc}.h. Senders and receivers: drivers/connector/cn_proc.c. The kernel sends a fork event
before the child runs. So on one socket the fork of a task comes before its other events, on whichever CPU they occur. The sockets are
connected to the kernel, so no other process can send to them (`netlink_getsockbyportid`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Iterator
from struct import Struct

from exporter.kernel.recvmmsg import widen
from exporter.model import ModeUnavailable

NETLINK_CONNECTOR = 11
NLMSG_DONE = 3
CN_IDX_PROC = CN_VAL_PROC = 1
LISTEN, IGNORE = 1, 2
EVENT_NONE, EVENT_FORK, EVENT_EXEC, EVENT_COMM, EVENT_EXIT = 0, 1, 2, 0x200, 0x80000000
EVERY_EVENT = 0
WANTED_EVENTS = EVENT_FORK | EVENT_EXEC | EVENT_COMM | EVENT_EXIT

SLOT_BYTES = 128
"""An event with its headers has 76 bytes."""
MESSAGE = Struct("=IH10xIIIIH2xIIQ6I")
"""Fields: nlmsghdr (length, type), cn_msg (idx, val, seq, ack, length), proc_event (what, cpu, timestamp_ns, six words of data)."""
DATA_AT, COMM_AT, COMM_LEN = 36, 60, 16
_SLOTS = Struct(f"{MESSAGE.format}{SLOT_BYTES - MESSAGE.size}x")
_WHOLE = MESSAGE.size - DATA_AT
_NEEDED = {EVENT_NONE: 20, EVENT_FORK: 32, EVENT_EXEC: 24, EVENT_COMM: _WHOLE, EVENT_EXIT: 32}
"""Minimum size of each event in bytes. Exit events have no parent before Linux 4.18."""
_REQUEST = Struct("=IHHII IIIIHH")
_NOOP = Struct("=IHHII").pack(16, 1, 0, 0, 0)
"""A header alone (NLMSG_NOOP), which the kernel ignores."""
_OPERATION, _INPUT = Struct("=I"), Struct("=II")
"""Data of a request: `enum proc_cn_mcast_op` or, since Linux 6.6, `struct proc_input`."""
_ACK_SECONDS = 0.3

Event = tuple[int, int, int, int, int, int, int, int, int, int, int]
"""Fields: what, cpu, timestamp_ns, sequence number, acknowledged number, six words of data."""

NO_PRIVILEGE = "this kernel sends process events only to processes with CAP_NET_ADMIN: run as root, or grant it"
OTHER_NETWORK = "process events exist only in the host's network namespace: use hostNetwork or --network=host"


def events(slots: memoryview, sizes: list[int]) -> Iterator[Event | None]:
    """Yield the event of each datagram; `None` if it is malformed. Each slot has `SLOT_BYTES`; `sizes` are those of the datagrams."""
    messages = _SLOTS.iter_unpack(slots[: len(sizes) * SLOT_BYTES])
    for size, (length, kind, idx, val, seq, ack, data_len, what, cpu, at_ns, a, b, c, d, e, f) in zip(sizes, messages, strict=True):
        end = DATA_AT + data_len
        if length > size or end > length or idx != CN_IDX_PROC or val != CN_VAL_PROC or kind != NLMSG_DONE or data_len < 16:
            yield None
        elif data_len == _WHOLE:
            yield (what, cpu, at_ns, seq, ack, a, b, c, d, e, f)
        elif data_len < _NEEDED.get(what, 16):
            yield None
        elif data_len > _WHOLE:  # a newer kernel: fields are only appended
            yield (what, cpu, at_ns, seq, ack, a, b, c, d, e, f)
        else:
            words = [word if 16 + 4 * (i + 1) <= data_len else 0 for i, word in enumerate((a, b, c, d, e, f))]
            yield (what, cpu, at_ns, seq, ack, words[0], words[1], words[2], words[3], words[4], words[5])


def comm_of(slots: memoryview, index: int) -> bytes:
    """Return the comm in the rename event of slot `index`."""
    at = index * SLOT_BYTES + COMM_AT
    return bytes(slots[at : at + COMM_LEN]).partition(b"\0")[0]


def request(operation: int, number: int, wanted: int | None = None) -> bytes:
    """Return a request to subscribe or unsubscribe.

    `number` comes back in the acknowledgement. `wanted` is a mask of events; only kernels since 6.6 accept a request with it.
    """
    body = _OPERATION.pack(operation) if wanted is None else _INPUT.pack(operation, wanted)
    size = _REQUEST.size + len(body)
    return _REQUEST.pack(size, NLMSG_DONE, 0, number, 0, CN_IDX_PROC, CN_VAL_PROC, number, number, len(body), 0) + body


class Subscription:
    """A socket that receives process events.

    Events also arrive without a subscription while another process has one, and stop when it leaves. So the subscription must be
    acknowledged. A filter also drops acknowledgements, so it is set after the acknowledgement.
    """

    def __init__(self, sock: socket.socket, buffer_bytes: int, *, filtered: bool, lease: socket.socket | None = None) -> None:
        """Adopt a subscribed socket. When `lease` closes, the process at its other end unsubscribes."""
        self.socket = sock
        self.buffer_bytes = buffer_bytes
        self.filtered = filtered
        self._lease = lease

    @classmethod
    def open(cls, buffer_bytes: int) -> Subscription:
        """Open a socket and subscribe. Raises `ModeUnavailable`."""
        sock = open_socket()
        subscription = cls(sock, widen(sock, buffer_bytes), filtered=False)
        try:
            subscription.filtered = subscription._subscribe()
        except OSError as error:
            sock.close()
            raise ModeUnavailable(f"cannot subscribe to process events: {error.strerror}") from error
        except ModeUnavailable:
            sock.close()
            raise
        return subscription

    def close(self) -> None:
        """Unsubscribe and close.

        Before Linux 6.6 (no filter) this needs CAP_NET_ADMIN and must happen only once: with a lease, its other end does it.
        """
        if self.filtered or self._lease is None:
            unsubscribe(self.socket)
        self.socket.close()
        if self._lease is not None:
            self._lease.close()

    def _subscribe(self) -> bool:
        """Subscribe, with a filter if the kernel has one. Returns whether it filters."""
        if self._listen(EVERY_EVENT):
            self.socket.send(request(LISTEN, 0, WANTED_EVENTS))
            return True
        if not self._listen(None):
            raise ModeUnavailable(
                "the kernel does not acknowledge the subscription: use the host's network namespace, or grant CAP_NET_ADMIN"
            )
        return False

    def _listen(self, wanted: int | None) -> bool:
        """Send a request, and return whether it is acknowledged in time."""
        number = int.from_bytes(os.urandom(4)) >> 1  # all listeners receive all acknowledgements
        self.socket.send(request(LISTEN, number, wanted))
        deadline = time.monotonic() + _ACK_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self.socket], [], [], left)[0]:
                break
            try:
                code = acknowledged(self.socket.recv(SLOT_BYTES), number)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue
            if code == errno.EPERM:
                raise ModeUnavailable(NO_PRIVILEGE)
            if code:
                raise OSError(code, os.strerror(code))
            if code == 0:
                return True
        return False


def unsubscribe(sock: socket.socket) -> None:
    """Remove one listener; otherwise the kernel continues to create events.

    Before Linux 6.6 each request with CAP_NET_ADMIN decrements the number of listeners. A second one would stop the events of others.
    """
    with contextlib.suppress(OSError):  # the socket has failed
        sock.send(UNSUBSCRIBE)


UNSUBSCRIBE = request(IGNORE, 0)
"""The message of `unsubscribe`."""


def acknowledged(datagram: bytes, number: int) -> int | None:
    """Return the errno in the acknowledgement of request `number`; None if the datagram is another message."""
    slot = memoryview(datagram.ljust(SLOT_BYTES, b"\0"))
    event = next(events(slot, [len(datagram)]))
    return event[5] if event is not None and event[0] == EVENT_NONE and event[4] == number + 1 else None


def open_socket() -> socket.socket:
    """Open a socket in the multicast group of process events. Raises `ModeUnavailable`."""
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_CONNECTOR)
    except OSError as error:
        if error.errno == errno.EPROTONOSUPPORT:
            raise ModeUnavailable(
                "the proc connector is missing: use a kernel that is built with CONFIG_PROC_EVENTS=y, and the host's network namespace"
            ) from error
        raise ModeUnavailable(f"cannot open the proc connector: {error.strerror}") from error
    try:
        sock.bind((0, CN_IDX_PROC))
        sock.connect((0, 0))
        sock.send(_NOOP)
    except ConnectionRefusedError as error:
        sock.close()
        raise ModeUnavailable(OTHER_NETWORK) from error
    except OSError as error:
        sock.close()
        if error.errno == errno.EPERM:
            raise ModeUnavailable(NO_PRIVILEGE) from error
        raise ModeUnavailable(f"cannot join the group of process events: {error.strerror}") from error
    return sock
