"""The ancestors of processes, from slots that the programs fill (`struct between_slots` and `struct above_slots` in bpf/maps.h)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from exporter.kernel.layout import (
    ABOVE_SLOTS,
    BETWEEN_SLOTS,
    BETWEEN_UNKNOWN,
    COMM_LEN,
    SPAWNER_DEEP,
    SPAWNER_FOUND,
    Above,
    Between,
)
from exporter.model import KERNEL_THREADS
from exporter.model.origins import DEEP, UNKNOWN, Lineage
from exporter.sources.ebpf.slots import Slots

_MOST_KNOWN = 4096
_CACHED = 4096
_FAMILY = ("ppid", "parent_comm", "spawner_state", "spawner", "spawner_pid", "spawner_start_ns")
"""What the ancestors of a process depend on, where none is between its parent and its spawner."""
_NOT_KNOWN = b"?"
"""No name that the kernel writes: these have 16 bytes."""


class _Known(NamedTuple):
    pid: int
    read_ns: int
    """When the programs read it."""
    names: Lineage


class Lineages:
    """The slots, and what was read from them. Not thread-safe."""

    def __init__(self, between_slots: int | None = None, above_slots: int | None = None) -> None:
        """Map these arrays. Raises `OSError`. Without one, what it would tell is unknown."""
        self._between_slots = None if between_slots is None else Slots(between_slots, Between, BETWEEN_SLOTS)
        self._above_slots = None if above_slots is None else Slots(above_slots, Above, ABOVE_SLOTS)
        self._known: dict[int, _Known] = {}

    def of(self, kernel: Mapping[str, Sequence[Any]]) -> list[Lineage]:
        """Return the lineage of each record. `kernel` has the fields of `RecordLayout` as columns."""
        found: list[Lineage] = []
        known: dict[tuple[Any, ...], Lineage] = {}
        """Those with nothing between parent and spawner. Most records of a batch have the same few."""
        families = zip(*map(kernel.__getitem__, _FAMILY), strict=True)
        for number, (family, n) in enumerate(zip(families, kernel["between_n"], strict=True)):
            lineage = None if n else known.get(family)
            if lineage is None:
                pid, start_ns = kernel["pid"][number], kernel["ended_ns"][number] - kernel["runtime_ns"][number]
                lineage = self._lineage(*family, between=self._between(pid, start_ns, n) if n else b"")
                if not n:
                    known[family] = lineage
            found.append(lineage)
        return found

    def close(self) -> None:
        """Unmap."""
        for each in (self._between_slots, self._above_slots):
            if each is not None:
                each.close()

    def _lineage(self, ppid: int, parent: bytes, state: int, spawner: bytes, *of_spawner: int, between: bytes) -> Lineage:
        if state != SPAWNER_FOUND:
            return _short_lived(state, between, parent)
        pid, start_ns = of_spawner
        return _joined(self._above(pid, start_ns), b"" if pid == ppid else spawner, between, parent)

    def _between(self, pid: int, start_ns: int, n: int) -> bytes:
        slot = None if n == BETWEEN_UNKNOWN or self._between_slots is None else self._between_slots.read(pid, start_ns)
        return _NOT_KNOWN if slot is None else slot[Between.names.offset :][: n * COMM_LEN]

    def _above(self, pid: int, start_ns: int) -> Lineage:
        known, slots = self._known.get(start_ns), self._above_slots
        if slots is not None and (known is None or (slots.word(pid, 0) == start_ns and slots.word(pid, 1) != known.read_ns)):
            known = self._read_above(slots, pid, start_ns) or known
        return (UNKNOWN,) if known is None or known.pid != pid else known.names

    def _read_above(self, slots: Slots, pid: int, start_ns: int) -> _Known | None:
        raw = slots.read(pid, start_ns)
        if raw is None:
            return None
        slot = Above.from_buffer_copy(raw)
        names = _split(raw[Above.names.offset :][: slot.n * COMM_LEN])
        if slot.top_is_kernel:
            names = (KERNEL_THREADS, *names) if slot.top_pid else names
        elif slot.top_pid > 1:
            names = (DEEP, *names)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        known = self._known[start_ns] = _Known(slot.pid, slot.read_ns, names)
        return known


def _split(names: bytes) -> Lineage:
    """Return names, the nearest first, as a lineage. After a NUL there may be anything."""
    each = (names[at : at + COMM_LEN].partition(b"\0")[0] for at in range(0, len(names), COMM_LEN))
    return tuple(each)[::-1]


def _inner(between: bytes) -> Lineage:
    return (UNKNOWN,) if between == _NOT_KNOWN else _split(between)


@lru_cache(_CACHED)
def _joined(above: Lineage, spawner: bytes, between: bytes, parent: bytes) -> Lineage:
    """Return the lineage below a spawner; an empty one is the parent itself."""
    inner = (spawner.rstrip(b"\0"), *_inner(between)) if spawner else ()
    return (*above, *inner, parent.rstrip(b"\0"))


@lru_cache(_CACHED)
def _short_lived(state: int, between: bytes, parent: bytes) -> Lineage:
    """Return the lineage of a process without a known spawner."""
    found = (*(_inner(between) if state == SPAWNER_DEEP else ()), parent.rstrip(b"\0"))
    return found if found[0] == UNKNOWN else (DEEP if state == SPAWNER_DEEP else UNKNOWN, *found)
