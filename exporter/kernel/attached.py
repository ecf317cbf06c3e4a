"""The kernel objects of a mode (maps, attached programs, sockets), as open descriptors."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from exporter.kernel.bpf import BpfMap

LEASE = "_lease"
"""Suffix of the name of a lease: a link whose close tells the broker that its link is not read any more."""

LATER_COPIES = ("on_exit_2", "on_exit_3")
"""Names of the further copies of the program `on_exit`, as they run. They exist where the kernel can preempt programs."""
FAILURES_MAP = "failures_"
"""Prefix of the names of the maps with failures: one for each kind."""
EVENT_PROGRAMS = ("send_fork", "send_exec", "send_exit", "send_signal")
"""Names of the programs of events, in the order of `EventKind`."""
EVENTS_MISSING = "events_missing"
"""Name of the fact with the reason why events cannot be had, though they are wanted."""
EVENT_BYTES = "event_bytes"
"""Name of the fact with the size of the ring of events."""
MISSING_PARTS = "missing_parts"
"""Name of the fact with the reasons why optional parts are not attached, by part."""


@dataclass(frozen=True, slots=True)
class Handover:
    """Open descriptors, by name. A link is a descriptor whose close ends an attachment of a program or a socket."""

    maps: dict[str, BpfMap] = field(default_factory=dict)
    programs: dict[str, int] = field(default_factory=dict)
    links: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    """What the loader found out about this host, as JSON values."""
    buffers: list[int] = field(default_factory=list)
    """Perf events to which records are written, one for each CPU; empty if the kernel has a ring buffer."""
    closing_messages: dict[str, bytes] = field(default_factory=dict)
    """By link: the message to send through a socket before it closes. Sending may need privileges, so it stays with the loader."""

    def manifest(self) -> dict[str, Any]:
        """Return names and sizes as JSON values, in the order of `descriptors`."""
        maps = {name: (each.key_size, each.value_size) for name, each in self.maps.items()}
        given = {"programs": list(self.programs), "links": list(self.links), "buffers": len(self.buffers)}
        return {"maps": maps, **given, "facts": self.facts}

    def descriptors(self) -> list[int]:
        """Return the descriptors of maps, programs, links and buffers, in this order."""
        return [*(each.fd for each in self.maps.values()), *self.programs.values(), *self.links.values(), *self.buffers]

    def detach(self) -> None:
        """Detach all programs. The maps stay readable. May be called twice."""
        while self.links:
            os.close(self.links.popitem()[1])

    def close(self) -> None:
        """Detach, and close all descriptors. May be called twice."""
        self.detach()
        for fd in (*self.programs.values(), *(each.fd for each in self.maps.values()), *self.buffers):
            os.close(fd)
        self.programs.clear()
        self.maps.clear()
        self.buffers.clear()
