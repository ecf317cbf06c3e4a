"""The handlers' child as a process: how it is started, the counters on its page, and how it is killed."""

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

from exporter.handlers.plan import Plan
from exporter.handlers.wire import Page, page_size, read_page
from exporter.process.log import fields

logger = logging.getLogger(__name__)

_BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); import importlib; importlib.import_module('exporter.handlers.child').main()"
_ROOT = str(Path(__file__).parents[2])
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ")
"""What the child gets of ours; a secret that a handler needs belongs into a file that only it can read."""
_BURY_SECONDS = 5.0


class Child:
    """It runs from the beginning, until it ends or is ended."""

    def __init__(self, plan: Plan, log: tuple[str, str], reading: int) -> None:
        """Start it with the pipe that it reads. It ends with the thread that calls this. Raises `OSError`."""
        self._handlers = len(plan.handlers)
        self._page_fd = os.memfd_create("handlers-page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self._page_fd, page_size(self._handlers))
            fcntl.fcntl(self._page_fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            spec = plan.spec() | {"root": _ROOT, "exporter": os.getpid(), "log": log}
            with os.fdopen(os.memfd_create("handlers-spec"), "w+") as stdin:  # not on the command line, where everybody could read it
                json.dump(spec, stdin)
                stdin.flush()
                stdin.seek(0)
                self._process = subprocess.Popen(  # noqa: S603
                    # -I: nothing is imported from the working directory or the environment
                    [sys.executable, "-I", "-c", _BOOT, _ROOT, str(reading), str(self._page_fd)],
                    stdin=stdin,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(reading, self._page_fd),
                    cwd="/",
                    env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                    start_new_session=True,  # Ctrl-C is for us; and we can end what handlers started, with them
                )
        except OSError:
            os.close(self._page_fd)
            raise

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def page(self) -> Page | None:
        """What it says now; None where it has spoilt that."""
        return read_page(self._page_fd, self._handlers)

    def ended(self) -> bool:
        """Whether it ended by itself; its number stays its own until it is buried."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def reap(self) -> int | None:
        """Kill it and all that it started; return its status, None if it can't be killed."""
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
        try:
            return self._process.wait(_BURY_SECONDS)
        except subprocess.TimeoutExpired:  # without CAP_KILL, where it runs as somebody else
            logger.error("the handlers' process can't be ended", extra=fields(pid=self.pid))  # noqa: TRY400
            return None

    def close(self) -> None:
        """Forget its page."""
        os.close(self._page_fd)
