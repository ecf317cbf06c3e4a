"""What a mode may be able to tell: a metric or a field of records says which fact it shows, a mode how well it tells each."""

from __future__ import annotations

from enum import StrEnum


class Fact(StrEnum):
    """The values are the titles of docs/modes.md's table."""

    PROCESSES = "processes, threads, runtimes"
    NAMES = "command names"
    PARENTS = "parents"
    SPAWNERS = "spawners"
    USERS = "users"
    OWNERS = "owners"
    OWNER_CPU = "CPU by owner"
    OWNER_OOM_KILLS = "OOM kills by owner"
    OUTCOMES = "outcomes"
    CORE_DUMPS = "core dumps"
    EXECS = "execs"
    KILLS = "SIGKILL"
    SIGNALS = "other signals"
    FORK_FAILURES = "failed forks"
    EXEC_FAILURES = "failed execs"
    OOM_KILLS = "OOM kills"
    CPU = "CPU"
    EXIT_TIMES = "the moment of an exit"
    SCAN_DURATION = "duration of a scan"
    PROGRAM_STATISTICS = "statistics of BPF programs"
    RECORD_USER = "records: user"
    RECORD_EXE = "records: executable"
    RECORD_CGROUP = "records: cgroup"
    RECORD_CPU = "records: CPU"
    RECORD_LINEAGE = "records: ancestors"
    RECORD_OOM = "records: OOM kill"
    RECORD_ARGUMENTS = "records: arguments, if asked for"
    EVENTS = "events, if a handler subscribes to them"
