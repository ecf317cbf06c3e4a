"""Wires the parts together and runs until it is told to stop."""

from __future__ import annotations

import ctypes
import logging
import signal
import sys
import time
from collections.abc import Callable

from exporter import __version__, log, version
from exporter.config import Config
from exporter.log import fields
from exporter.metrics import Exposition
from exporter.model import NS, Mode, Unusable
from exporter.reload import LastReload, Reloader
from exporter.supervisor import Snapshot, Supervisor
from exporter.web import landing
from exporter.web.address import wording
from exporter.web.server import Server

logger = logging.getLogger(__name__)

_TICK_SECONDS = 1.0
_ROWS = 15
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}

EXIT_BIND = 1
EXIT_CONFIG = 2

_M_ARENA_MAX = -8  # malloc.h


def main(config: Config, reread: Callable[[], Config]) -> int:
    """Serve until SIGTERM or SIGINT; at SIGHUP, read the configuration again. Returns the exit status."""
    log.setup(config.log.level, config.log.format)
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)  # an arena for each thread would cost memory, and Python runs one thread at a time
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # before the first thread, which inherits it; they are waited for below
    supervisor = Supervisor(config)
    reloader = Reloader(config, supervisor, reread)
    pages = Pages(config, supervisor, reloader.last)
    try:
        server = Server(config.web.listen_address, config.web.telemetry_path, pages, config.web.public_records)
    except OSError as error:
        return _refuse(wording(config.web.listen_address, error), EXIT_BIND)
    server.start()
    try:
        try:
            supervisor.start()
        except Unusable as reason:
            return _refuse(str(reason), EXIT_CONFIG)
        logger.info("listening", extra=fields(address=config.web.listen_address, path=config.web.telemetry_path, version=__version__))
        while (told := signal.sigtimedwait(_SIGNALS, _TICK_SECONDS)) is None or told.si_signo == signal.SIGHUP:
            if told is not None:
                reloader.run()
            supervisor.tick()
        logger.info("stopping", extra=fields(signal=signal.Signals(told.si_signo).name))
    finally:
        server.close()
        supervisor.stop()
    return 0


def _refuse(reason: str, status: int) -> int:
    print(f"shortproc-exporter: error: {reason}", file=sys.stderr)  # noqa: T201
    return status


class Pages:
    """What the server shows."""

    def __init__(self, config: Config, supervisor: Supervisor, last_reload: LastReload) -> None:
        self._config = config
        self._supervisor = supervisor
        self._exposition = Exposition(config, supervisor.snapshot, last_reload)
        self._started = time.monotonic()

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """Body and content type."""
        return self._exposition.render(accept)

    def healthy(self) -> str | None:
        """Whether the supervising loop goes round."""
        return self._supervisor.stuck()

    def ready(self) -> str | None:
        """Whether a source runs."""
        return None if self._supervisor.ready else "no mode is active yet"

    def landing(self, names: bool) -> str:
        """The page at /."""
        snapshot = self._supervisor.snapshot()
        comms, folded = self._supervisor.busiest(_ROWS) if names else ([], [])
        counts = snapshot.view.counts
        status = landing.Status(
            version=__version__,
            revision=version.revision(),
            mode=snapshot.mode,
            why=snapshot.why,
            rungs=tuple((mode, _state(mode, snapshot), state.reason) for mode, state in snapshot.rungs.items()),
            capture_ratio=snapshot.capture_ratio,
            threshold_seconds=self._config.detection.short_threshold_seconds,
            uptime_seconds=time.monotonic() - self._started,
            ended_processes=sum(counts.total.exits),
            short_processes=counts.total.short_exits,
            peak_per_second=snapshot.gauges.peak_per_second,
            top_comms=tuple(
                landing.Row(name, each.short_exits, sum(each.exits), each.cpu_ns / NS) for name, each in comms if any(each.exits)
            ),
            folded=tuple(folded),
            lost=tuple((reason, n) for reason, n in counts.lost.items() if n),
            degraded=snapshot.degraded,
        )
        return landing.render(status, self._config.web.telemetry_path, names)


def _state(mode: Mode, snapshot: Snapshot) -> str:
    if mode == snapshot.mode:
        return "active"
    return "usable" if snapshot.rungs[mode].usable else "unusable"
