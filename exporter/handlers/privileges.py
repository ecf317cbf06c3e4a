"""Drops the privileges of the handlers' child before it runs user code."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from pathlib import Path

from exporter.process.privileges import check, set_capabilities

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_MOST_CAPABILITIES = 64

_LIMITS = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_NOFILE: 256,
    resource.RLIMIT_DATA: 512 << 20,
}
_OOM_SCORE = "500"
"""If memory runs out, the kernel kills the child before the exporter."""


def drop(user: int | None, group: int | None, exporter: int) -> None:
    """Switch to `user` and `group`, if given, without capabilities or a way to get any. The process is killed when `exporter` exits.

    Raises `OSError`; the caller must then run no user code.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.suppress(OSError):  # /proc may be hidden
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    for number in range(_MOST_CAPABILITIES):  # needs CAP_SETPCAP
        if libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) != 0:
            break
    if user is not None and group is not None:
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)  # fails where the kernel has none (before 4.3)
    set_capabilities(libc, 0)
    check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    check(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))  # after the change of user, which clears it
    if os.getppid() != exporter:
        raise ProcessLookupError("the exporter has gone")
    os.umask(0o027)
    for limit, most in _LIMITS.items():
        hard = resource.getrlimit(limit)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (least, least))
