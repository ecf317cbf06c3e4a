"""What to do when the system gives this process no more descriptors, processes or memory."""

from __future__ import annotations

import errno
import resource

NEEDED_FILES = 64
"""Open files that loading and serving need, with some to spare."""

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
    """Return a sentence for an error that comes from a shortage, else None."""
    if isinstance(error, OSError):
        return _ADVICE.get(error.errno or 0)
    # how CPython says that pthread_create failed: Modules/_threadmodule.c
    return _NO_PROCESS if isinstance(error, RuntimeError) and str(error) == "can't start new thread" else None


def describe(error: OSError) -> str:
    """Return advice, or the system's own words."""
    return advice(error) or error.strerror or str(error)


def file_limit_advice() -> str | None:
    """Say that the limit of open files is lower than what is needed, if it is: not every failure of that kind has this errno."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit >= NEEDED_FILES:
        return None
    return f"only {limit} open files are allowed, and {NEEDED_FILES} are needed: raise the limit (ulimit -n, or LimitNOFILE= of systemd)"
