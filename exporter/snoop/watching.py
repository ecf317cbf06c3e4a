"""Records of this host, which snoop observes itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from exporter.config.options import Config
from exporter.loaders.direct import Direct
from exporter.model import Mode, SourceFailed
from exporter.records.arguments import reducer
from exporter.records.hub import Hub
from exporter.snoop.printer import Inbox
from exporter.supervision.modes import SPECS, loader_settings
from exporter.supervision.supervisor import Supervisor


class Watching:
    """Uses a supervisor like the exporter's, but only for its records."""

    def __init__(self, config: Config, inbox: Inbox, tell: Callable[[str], None]) -> None:
        self.failure: str | None = None
        self.finished = False
        self._hub = Hub(0, reducer(config.records))
        self._inbox = inbox
        self._supervisor = Supervisor(config, self._hub, Direct(loader_settings(config)))
        self._tell = tell
        self._reported: Mode | None = None
        self.dropped = 0

    def start(self) -> None:
        """Start the best mode that works. Raises `ModeUnavailable`."""
        self._supervisor.start()
        self._hub.attach(self._inbox)  # only now: the start of a mode runs short processes itself
        self._tell_mode()

    def tick(self) -> None:
        """Let the supervisor tick, and report a change of the mode."""
        self._supervisor.tick()
        self._tell_mode()

    def stop(self) -> None:
        """Stop the supervisor, and note the dropped records."""
        with contextlib.suppress(SourceFailed):
            self.dropped = self._supervisor.snapshot().records_dropped["reader", "full"]
        self._supervisor.stop()

    def _tell_mode(self) -> None:
        mode = self._supervisor.mode
        if mode is None or mode is self._reported:
            return
        self._reported = mode
        snapshot = self._supervisor.snapshot()
        why = f", because {snapshot.why.rstrip('.')}" if snapshot.degraded else ""
        caution = ", which misses most processes that live for less than its interval" if not SPECS[mode].exact else ""
        self._tell(f"mode {mode}{caution}{why}")
