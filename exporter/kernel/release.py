"""The version of the running kernel."""

from __future__ import annotations

import os

_PREEMPTIBLE_PROGRAMS = (7, 0)
"""From then on preemption is enabled while tracepoints run BPF programs: include/linux/tracepoint.h, __DECLARE_TRACE()."""


def preempts_programs() -> bool:
    """Return whether the kernel can preempt a program at a tracepoint. It then skips the program for others that come to it meanwhile."""
    return version() >= _PREEMPTIBLE_PROGRAMS


def version() -> tuple[int, ...]:
    """Return the first two numbers of the kernel release, e.g. (6, 18). Suffixes of distributions are ignored."""
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in os.uname().release.split(".")[:2])
