"""Opens the sockets of the mode `netlink`. This needs privileges; reading from them does not."""

from __future__ import annotations

import errno
import socket
from typing import NamedTuple, Self

from exporter.kernel.attached import LEASE, Handover
from exporter.kernel.capabilities import in_initial_user_namespace
from exporter.kernel.proc_connector import UNSUBSCRIBE, Subscription, open_socket
from exporter.kernel.procfs import Procfs
from exporter.kernel.taskstats import Registration
from exporter.model import ModeUnavailable

BUFFER_BYTES = 32 << 20
"""Enough for about 40,000 events or 14,000 taskstats messages. Memory is used only while they are queued."""

_EVENTS, _TASKSTATS = "events", "taskstats"


class Sockets(NamedTuple):
    """The sockets of the mode."""

    subscription: Subscription
    registration: Registration | None
    no_taskstats: str
    """Why there is no registration; else empty."""

    def to_handover(self) -> Handover:
        """Detach the sockets from this object, for `from_handover` in this or another process."""
        events, registration = self.subscription, self.registration
        handover = Handover(
            links={_EVENTS: events.socket.detach()},
            facts={"filtered": events.filtered, "event_bytes": events.buffer_bytes, "no_taskstats": self.no_taskstats},
            closing_messages={_EVENTS: UNSUBSCRIBE},
        )
        if registration is not None:
            handover.links[_TASKSTATS] = registration.socket.detach()
            handover.facts.update(family=registration.family, stats_bytes=registration.buffer_bytes)
        return handover

    @classmethod
    def from_handover(cls, handover: Handover) -> Self:
        """Adopt the descriptors from `to_handover`."""
        links = {name: socket.socket(fileno=fd) for name, fd in handover.links.items()}
        facts = handover.facts
        subscription = Subscription(links[_EVENTS], facts["event_bytes"], filtered=facts["filtered"], lease=links.get(_EVENTS + LEASE))
        stats = links.get(_TASKSTATS)
        registration = None if stats is None else Registration(stats, facts["stats_bytes"], facts["family"])
        return cls(subscription, registration, facts["no_taskstats"])


def open_sockets(procfs: Procfs) -> Sockets:
    """Open the sockets. Raises `ModeUnavailable`.

    Taskstats is opened first, so that every exit event has its taskstats message.
    """
    if reason := refusal(procfs):
        raise ModeUnavailable(reason)
    registration, reason = None, ""
    try:
        registration = Registration.open(BUFFER_BYTES)
    except OSError as error:
        reason = "it needs CAP_NET_ADMIN" if error.errno == errno.EPERM else error.strerror or str(error)
    try:
        return Sockets(Subscription.open(BUFFER_BYTES), registration, reason)
    except ModeUnavailable:
        if registration is not None:
            registration.close()
        raise


def refusal(procfs: Procfs) -> str | None:
    """Return why the mode cannot run here, or None if a cheap check finds no obstacle."""
    if not procfs.in_initial_pid_namespace():
        return "process events exist only in the host's pid namespace: use hostPID or --pid=host"
    try:
        if not in_initial_user_namespace(procfs.root):
            return "process events exist only in the host's user namespace: do not use --userns or a rootless container"
        open_socket().close()
    except OSError as error:
        return f"cannot read {procfs.root}/self/ns/user: {error.strerror}"
    except ModeUnavailable as error:
        return str(error)
    return None
