"""What the commands that show records have in common, while they run."""

from __future__ import annotations

import signal
import sys

from exporter.config.options import Config, Filter
from exporter.config.problems import one_line
from exporter.library.following import Following
from exporter.library.host import Host
from exporter.library.processes import Processes
from exporter.process.signals import Signals, hangup_is_ignored

OK, FAILED, BAD_USAGE = 0, 1, 2
"""Exit statuses."""


def observed(url: str | None, config: Config, wanted: Filter) -> Processes:
    """Return the processes of another exporter, or of this host if `url` is None."""
    return Host(config, wanted) if url is None else Following(url, wanted)


def stop_signals() -> Signals:
    """Block the signals that end a command, and return them. SIGHUP is one unless the parent ignored it."""
    stops = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    return Signals(stops - {signal.SIGHUP} if hangup_is_ignored() else stops)


def tell(text: str) -> None:
    """Print a message to standard error."""
    if sys.stderr is not None:  # else print would use standard output
        print(f"shortproc-exporter: {one_line(text)}", file=sys.stderr)  # noqa: T201


def refuse(reason: str, status: int) -> int:
    """Print why a command cannot go on. Returns the exit status."""
    tell(f"error: {reason}")
    return status
