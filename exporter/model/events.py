"""Events of any process, for those who subscribe to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple, Self


class EventKind(StrEnum):
    """In the order of `enum event_kind` in bpf/events.h. What stands below each is printed in docs/handlers.md."""

    position: int

    def __init__(self, _: str) -> None:
        self.position = len(type(self).__members__)

    FORK = "fork"
    """A process started another one."""
    EXEC = "exec"
    """A process executed a program."""
    EXIT = "exit"
    """A process exited: its last thread. Short-lived or not."""
    SIGNAL = "signal"
    """A signal was sent to a process. Not those that it ignores, nor a second one of the same number while the first is pending."""


class EventKey(IntEnum):
    """What the programs can filter by, in the order of `enum event_by`."""

    UID, PID, PPID, COMM, PARENT = range(5)


class AllowedKey(NamedTuple):
    by: int
    """An `EventKey`."""
    value: int | str
    kinds: int
    """Bits of the kinds whose events may have this value."""


@dataclass(frozen=True, slots=True)
class WantedEvents:
    """The events that the programs send: of these kinds, as far as each is filtered with one of these keys."""

    kinds: tuple[str, ...] = ()
    filtered_by: tuple[int, ...] = (0,) * len(EventKind)
    """For each kind: bits of `EventKey`."""
    keys: tuple[AllowedKey, ...] = ()

    @classmethod
    def from_json(cls, kinds: Iterable[str], filtered_by: Iterable[int], keys: Iterable[Iterable[Any]]) -> Self:
        """Return it from values that JSON has made lists of."""
        return cls(tuple(kinds), tuple(filtered_by), tuple(AllowedKey(*each) for each in keys))


NO_EVENTS = WantedEvents()
NOT_IN_THIS_MODE = "only the mode ebpf_core tells events"
