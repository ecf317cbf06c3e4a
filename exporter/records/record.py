"""The record of one short process. Each field is declared here; JSON, SQLite, snoop, page and documents are made from it.

To add a field, declare it at the end, with a default for sources that do not know it (`= b""`, `= None`). Fill it in the sources that know
it, and run `make docs`. If the kernel sends it under the same name, only `RecordLayout` needs the field too.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from exporter.model import Mode, Outcome
from exporter.model.facts import Fact
from exporter.records import kinds, shown
from exporter.records.fields import Column, Field, Json, Key, Narrow, fields_of

_FATE, _WHOLE_FATE = ("outcome", "code"), ("outcome", "code", "oom_killed")
_OWNER = ("owner_kind", "unit", "namespace", "pod", "container")


def _read_code(found: Json) -> int | None:
    return kinds.whole_or_none(found["exit_code"] if found["signal"] is None else kinds.signal_number(found["signal"]))


class Record(NamedTuple):
    """One short process. It never contains the environment; arguments only if `records.arguments` asks for them."""

    ended_ns: Annotated[
        int,
        Field(
            "time of the exit",
            kinds.MOMENT,
            Fact.EXIT_TIMES,
            keys=(
                Key("ended_at", kinds.MOMENT.json, attribute="process.exit.time"),
                Key("started_at", kinds.STARTED, ("ended_ns", "runtime_ns"), "time of the fork", "process.creation.time"),
            ),
            snoop=Column(1, "TIME", "<12", about="local time of the exit", narrow=Narrow(7, 8, "head")),
            page=Column(1, "#Exited"),
        ),
    ]
    runtime_ns: Annotated[
        int,
        Field(
            "time from fork to exit",
            kinds.SPAN,
            Fact.PROCESSES,
            keys=(Key("runtime_seconds", kinds.SPAN.json),),
            snoop=Column(5, "RUNTIME", ">9", narrow=Narrow(4, 9)),
            page=Column(4, "#Runtime ms"),
        ),
    ]
    pid: Annotated[
        int,
        Field(
            "process ID",
            kinds.NUMBER,
            Fact.PROCESSES,
            attribute="process.pid",
            snoop=Column(2, "PID", ">7", narrow=Narrow(6, 7)),
            page=Column(9, "#PID"),
        ),
    ]
    ppid: Annotated[
        int,
        Field(
            "process ID of the parent, at the exit",
            kinds.NUMBER_IF_NOT_0,
            Fact.PARENTS,
            attribute="process.parent_pid",
            snoop=Column(3, "PPID", ">7", narrow=Narrow(13, 7)),
        ),
    ]
    uid: Annotated[int | None, Field("real user ID", kinds.NUMBER, Fact.RECORD_USER, attribute="process.real_user.id")]
    comm: Annotated[
        bytes,
        Field(
            "command name, at the exit",
            kinds.NAME,
            Fact.NAMES,
            attribute="process.command",
            snoop=Column(4, "COMM", "<15", narrow=Narrow(1, 10)),
            page=Column(2, "@Name"),
        ),
    ]
    parent_comm: Annotated[
        bytes,
        Field(
            "command name of the parent, at the exit",
            kinds.NAME_IF_KNOWN,
            Fact.PARENTS,
            snoop=Column(8, "PARENT", "<15", narrow=Narrow(3, 10)),
            page=Column(8, "@Parent"),
        ),
    ]
    exe: Annotated[
        bytes,
        Field(
            "path of the executable, as given to the last exec, up to 255 bytes",
            kinds.NAME_IF_KNOWN,
            Fact.RECORD_EXE,
            attribute="process.executable.path",
            snoop=Column(12, "EXE", "<24", narrow=Narrow(8, 14, "end")),
            page=Column(10, "@Executable", form=shown.name),
        ),
    ]
    outcome: Annotated[
        Outcome,
        Field(
            "how it exited",
            kinds.OUTCOME,
            Fact.OUTCOMES,
            snoop=Column(
                7,
                "OUTCOME",
                "<9",
                shown.status,
                _WHOLE_FATE,
                "`0`, `exit N`, the signal that killed it, or `OOMKilled` by the OOM killer",
                narrow=Narrow(5, 9),
            ),
            page=Column(3, "Outcome", form=shown.fate, of=_WHOLE_FATE),
        ),
    ]
    code: Annotated[
        int | None,
        Field(
            "exit code, or number of the signal that killed it",
            kinds.NUMBER,
            Fact.OUTCOMES,
            keys=(
                Key("exit_code", kinds.EXIT_CODE, _FATE, "exit code, if `outcome` is `ok` or `error`", "process.exit.code"),
                Key("signal", kinds.SIGNAL, _FATE, "name of the signal, if `outcome` is `signal`"),
            ),
            read=_read_code,
        ),
    ]
    cpu_ns: Annotated[
        int | None,
        Field(
            "user and system time of all threads",
            kinds.SPAN,
            Fact.RECORD_CPU,
            keys=(Key("cpu_seconds", kinds.SPAN.json),),
            snoop=Column(6, "CPU", ">9", narrow=Narrow(9, 9)),
            page=Column(5, "#CPU ms"),
        ),
    ]
    cgroup: Annotated[
        bytes,
        Field(
            "path of its cgroup, below the root of the hierarchy", kinds.NAME_IF_KNOWN, Fact.RECORD_CGROUP, attribute="process.linux.cgroup"
        ),
    ]
    mode: Annotated[Mode, Field("mode that observed it", kinds.MODE, Fact.PROCESSES)]
    spawner: Annotated[
        bytes,
        Field(
            "command name of the nearest ancestor that was not short-lived itself, at the exit; `deep` if that is more than 8 steps away",
            kinds.NAME_IF_KNOWN,
            Fact.SPAWNERS,
            snoop=Column(
                9,
                "SPAWNER",
                "<15",
                about="command name of the nearest ancestor that was not short-lived itself, or `deep`",
                narrow=Narrow(12, 10),
            ),
            page=Column(7, "@Spawner"),
        ),
    ] = b""
    user: Annotated[
        str,
        Field(
            "user: its name, or its number if it has none",
            kinds.LABEL_IF_KNOWN,
            Fact.RECORD_USER,
            attribute="process.real_user.name",
            snoop=Column(10, "USER", "<8", narrow=Narrow(11, 8)),
        ),
    ] = ""
    owner_kind: Annotated[
        str,
        Field(
            "owner: service, scope, session, container, pod, machine or system",
            kinds.LABEL_IF_KNOWN,
            Fact.OWNERS,
            snoop=Column(
                11,
                "OWNER",
                "<20",
                shown.owner_or_nothing,
                _OWNER,
                "systemd unit, container, or `NAMESPACE/POD/CONTAINER`",
                narrow=Narrow(10, 14),
            ),
            page=Column(6, "@Owner", form=shown.owner_or_question, of=_OWNER),
        ),
    ] = ""
    unit: Annotated[str, Field("owner: systemd unit", kinds.LABEL_IF_KNOWN, Fact.OWNERS)] = ""
    namespace: Annotated[str, Field("owner: namespace of the pod", kinds.LABEL_IF_KNOWN, Fact.OWNERS, attribute="k8s.namespace.name")] = ""
    pod: Annotated[str, Field("owner: pod", kinds.LABEL_IF_KNOWN, Fact.OWNERS, attribute="k8s.pod.name")] = ""
    container: Annotated[str, Field("owner: container or machine", kinds.LABEL_IF_KNOWN, Fact.OWNERS, attribute="container.name")] = ""
    oom_killed: Annotated[
        bool | None, Field("whether the OOM killer chose it, so that it was killed by SIGKILL", kinds.YES_OR_NO, Fact.RECORD_OOM)
    ] = None
    arguments: Annotated[
        bytes | None,
        Field(
            "arguments of the last exec, the program's own name first: what `records.arguments` asks for of the first 512 bytes",
            kinds.ARGUMENTS,
            Fact.RECORD_ARGUMENTS,
            attribute="process.command_args",
            snoop=Column(
                13,
                "ARGS",
                form=shown.command_line,
                of=("arguments", "arguments_cut"),
                about="arguments, as a shell would take them; `>` at the end if there are more than 512 bytes",
                flag="--args",
                narrow=Narrow(2, 24),
            ),
        ),
    ] = None
    arguments_cut: Annotated[
        bool | None, Field("whether there are more than 512 bytes of arguments", kinds.YES_OR_NO, Fact.RECORD_ARGUMENTS)
    ] = None
    lineage: Annotated[
        tuple[bytes, ...],
        Field(
            "command names of its ancestors, from process 1 to the parent; first `deep` if there are more; `unknown` for any number of "
            "unknown ones",
            kinds.LINEAGE,
            Fact.RECORD_LINEAGE,
        ),
    ] = ()


FIELDS = fields_of(Record)
