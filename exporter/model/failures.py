"""Why processes do not start, or are killed for memory."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What failed."""

    FORK = "fork"
    EXEC = "exec"
    OOM_KILL = "oom_kill"


class FailedStarts(StrEnum):
    """Whether failed forks and execs are counted."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Failure(NamedTuple):
    """One way to fail."""

    kind: Kind
    errno: str = ""
    """Name of the error, or `other`; empty for an OOM kill."""


FAILURES = (
    *(Failure(Kind.FORK, errno) for errno in ("EAGAIN", "ENOMEM", "other")),
    *(Failure(Kind.EXEC, errno) for errno in ("ENOENT", "EACCES", "ENOEXEC", "E2BIG", "other")),
    Failure(Kind.OOM_KILL),
)
"""In the order of `enum failure` in bpf/failures.h."""
