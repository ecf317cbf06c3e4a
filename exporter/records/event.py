"""An event of any process, for subscribers. JSON and documents are made from the declaration of its fields."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from exporter.model import Mode, Outcome
from exporter.model.events import EventKind
from exporter.model.facts import Fact
from exporter.records import kinds
from exporter.records.fields import Field, Key, fields_of

_FATE = ("kind", "outcome", "code")


class Event(NamedTuple):
    """Something that happened to a process. What a kind does not have is None or empty."""

    kind: Annotated[EventKind, Field("what happened", kinds.EVENT_KIND, Fact.EVENTS)]
    at_ns: Annotated[int, Field("time of the event", kinds.MOMENT, Fact.EVENTS, keys=(Key("at", kinds.MOMENT.json),))]
    pid: Annotated[
        int,
        Field(
            "process ID; at a fork that of the process that started the other one, at a signal of the receiver", kinds.NUMBER, Fact.EVENTS
        ),
    ]
    ppid: Annotated[int, Field("process ID of its parent", kinds.NUMBER_IF_NOT_0, Fact.EVENTS)]
    uid: Annotated[int, Field("its real user ID", kinds.NUMBER, Fact.EVENTS)]
    comm: Annotated[bytes, Field("its command name", kinds.NAME, Fact.EVENTS)]
    parent_comm: Annotated[bytes, Field("command name of its parent", kinds.NAME_IF_KNOWN, Fact.EVENTS)]
    exe: Annotated[bytes, Field("exec: path of the executable, as given to exec, up to 255 bytes", kinds.NAME_IF_KNOWN, Fact.EVENTS)]
    outcome: Annotated[Outcome | None, Field("exit: how it exited", kinds.OUTCOME, Fact.EVENTS)]
    code: Annotated[
        int | None,
        Field(
            "exit: exit code, or number of the signal that killed it; signal: its number",
            kinds.NUMBER,
            Fact.EVENTS,
            keys=(Key("exit_code", kinds.EXIT_CODE, ("outcome", "code")), Key("signal", kinds.SIGNAL_OF_EVENT, _FATE)),
        ),
    ]
    runtime_ns: Annotated[
        int | None,
        Field("exit: time from fork to exit", kinds.SPAN, Fact.EVENTS, keys=(Key("runtime_seconds", kinds.SPAN.json),)),
    ]
    child_pid: Annotated[int | None, Field("fork: process ID of the new process", kinds.NUMBER, Fact.EVENTS)]
    sender_pid: Annotated[int | None, Field("signal: process ID of the sender; 0 if the kernel sent it", kinds.NUMBER, Fact.EVENTS)]
    sender_comm: Annotated[bytes, Field("signal: command name of the sender", kinds.NAME_IF_KNOWN, Fact.EVENTS)]
    mode: Annotated[Mode, Field("mode that observed it", kinds.MODE, Fact.EVENTS)]


EVENT_FIELDS = fields_of(Event)
