"""Starts the handlers' child process, reads the counters on its page, and kills it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

from exporter.handlers import registries
from exporter.handlers.plan import Plan
from exporter.handlers.wire import Page, page_size, read_page
from exporter.process.log import fields

logger = logging.getLogger(__name__)

_BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); import importlib; importlib.import_module('exporter.handlers.child').main()"
_ROOT = str(Path(__file__).parents[2])
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ")
"""Variables that the child inherits. A secret for a handler belongs in a file that only the child's user can read."""
_REAP_SECONDS = 5.0


class Child:
    """The child process. It runs until it exits or `reap` kills it."""

    def __init__(self, plan: Plan, log: tuple[str, str], reading: int) -> None:
        """Start it; `reading` is the pipe that it reads. It is killed when the calling thread ends. Raises `OSError`."""
        self._handlers = len(plan.handlers)
        self._files = contextlib.ExitStack()
        try:
            self._page_fd = self._memory_file("handlers-page", page_size(self._handlers))
            self._metrics_fd = self._memory_file("handlers-metrics", registries.file_size())
            spec = plan.spec() | {"root": _ROOT, "exporter": os.getpid(), "log": log}
            with os.fdopen(os.memfd_create("handlers-spec"), "w+") as stdin:  # not on the command line, which all users can read
                json.dump(spec, stdin)
                stdin.flush()
                stdin.seek(0)
                self._process = subprocess.Popen(  # noqa: S603
                    # -I: nothing is imported from the working directory or the environment
                    [sys.executable, "-I", "-c", _BOOT, _ROOT, str(reading), str(self._page_fd), str(self._metrics_fd)],
                    stdin=stdin,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(reading, self._page_fd, self._metrics_fd),
                    cwd="/",
                    env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                    start_new_session=True,  # Ctrl-C does not reach it, and we can kill it together with the programs that handlers started
                )
        except OSError:
            self._files.close()
            raise

    @property
    def pid(self) -> int:
        """Process ID."""
        return self._process.pid

    def page(self) -> Page | None:
        """Return the present counters; None if the child has damaged the page."""
        return read_page(self._page_fd, self._handlers)

    def metrics(self) -> bytes | None:
        """Return what `registries.read_body` does."""
        return registries.read_body(self._metrics_fd)

    def ended(self) -> bool:
        """Return whether it has exited by itself. Its PID is not reused before `reap`."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def reap(self) -> int | None:
        """Kill it and all processes that it started. Returns its exit status, or None if it cannot be killed."""
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
        try:
            return self._process.wait(_REAP_SECONDS)
        except subprocess.TimeoutExpired:  # it runs as another user, and we lack CAP_KILL
            logger.error("cannot kill the handler process", extra=fields(pid=self.pid))  # noqa: TRY400
            return None

    def close(self) -> None:
        """Close its memory files."""
        self._files.close()

    def _memory_file(self, name: str, size: int) -> int:
        """Make a file whose size the child cannot change."""
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._files.callback(os.close, fd)
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return fd
