"""What a mode holds of the kernel, attached programs or sockets, as open descriptors."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from exporter.kernel.bpf import BpfMap

LEASE = "_lease"
"""Ends the name of a link that tells the loader's process, when it closes, that nobody reads the link of that name any more."""


@dataclass(frozen=True, slots=True)
class Handover:
    """Open descriptors, by name. A link is anything whose closing ends an attachment: of a program, or of a socket."""

    maps: dict[str, BpfMap] = field(default_factory=dict)
    programs: dict[str, int] = field(default_factory=dict)
    links: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    """What else the loader found out."""
    buffers: list[int] = field(default_factory=list)
    """Perf events that records are written to, one a CPU; none where the kernel has a ring for them."""
    closing_messages: dict[str, bytes] = field(default_factory=dict)
    """By link, a socket's: what must be sent through it before it closes, which may take the privileges of the loader. Not handed on."""

    def manifest(self) -> dict[str, Any]:
        """Name everything, in the order of `descriptors`."""
        maps = {name: (each.key_size, each.value_size) for name, each in self.maps.items()}
        given = {"programs": list(self.programs), "links": list(self.links), "buffers": len(self.buffers)}
        return {"maps": maps, **given, "facts": self.facts}

    def descriptors(self) -> list[int]:
        """Maps, programs, links and buffers."""
        return [*(each.fd for each in self.maps.values()), *self.programs.values(), *self.links.values(), *self.buffers]

    def detach(self) -> None:
        """Let no program run any more. The maps stay readable. May be called twice."""
        while self.links:
            os.close(self.links.popitem()[1])

    def close(self) -> None:
        """Give everything back."""
        self.detach()
        for fd in (*self.programs.values(), *(each.fd for each in self.maps.values()), *self.buffers):
            os.close(fd)
        self.programs.clear()
        self.maps.clear()
        self.buffers.clear()
