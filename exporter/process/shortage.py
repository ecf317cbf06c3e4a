"""Advice for shortages of file descriptors, processes and memory."""

from __future__ import annotations

import errno
import resource

NEEDED_FILES = 96
"""Open files needed for loading and serving, with a reserve."""

_NO_PROCESS = (
    "cannot start another process or thread: raise the limit of processes (ulimit -u, TasksMax= of systemd, or the container's limit)"
)
_ADVICE = {
    errno.EMFILE: "too many open files: raise the limit (ulimit -n, or LimitNOFILE= of systemd)",
    errno.ENFILE: "too many open files on this host: raise fs.file-max",
    errno.EAGAIN: _NO_PROCESS,
    errno.ENOMEM: "out of memory: raise the memory limit",
}


def advice(error: BaseException) -> str | None:
    """Return advice for an error caused by a shortage, else None."""
    if isinstance(error, MemoryError):
        return _ADVICE[errno.ENOMEM]
    if isinstance(error, OSError):
        return _ADVICE.get(error.errno or 0)
    # pthread_create failed: CPython, Modules/_threadmodule.c
    return _NO_PROCESS if isinstance(error, RuntimeError) and str(error) == "can't start new thread" else None


def describe(error: OSError) -> str:
    """Return advice for a shortage, else the message of the error."""
    return advice(error) or error.strerror or str(error)


def file_limit_advice() -> str | None:
    """Return advice if the limit of open files is too low, else None. Not every failure caused by it has the errno EMFILE."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit >= NEEDED_FILES:
        return None
    return f"only {limit} open files are allowed, and {NEEDED_FILES} are needed: raise the limit (ulimit -n, or LimitNOFILE= of systemd)"
