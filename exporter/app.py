"""Wires the parts together and runs until it is told to stop."""

from __future__ import annotations

import contextlib
import ctypes
import heapq
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from exporter import __version__, log, privileges, version
from exporter.config import Config, ConfigError
from exporter.log import fields
from exporter.metrics import Exposition
from exporter.model import NS, Mode, ProcessCounts, SourceFailed, Unusable
from exporter.record_json import Json
from exporter.records import Hub
from exporter.reload import LastReload, Reloader
from exporter.sdnotify import Notifier
from exporter.snapshot import Snapshot
from exporter.supervisor import Supervisor
from exporter.web.address import wording
from exporter.web.landing import Row, Status, changes, render
from exporter.web.rates import Rates
from exporter.web.server import Server
from exporter.web.stream import MOST_RECORDS
from exporter.web.terms import Gate, Open

if TYPE_CHECKING:
    from exporter.handlers.parent import Handlers
    from exporter.handlers.plan import Plan
    from exporter.loaders.broker import Broker

logger = logging.getLogger(__name__)

_TICK_SECONDS = 1.0
_ROWS = 10
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}

EXIT_BIND = 1
EXIT_CONFIG = 2

_M_ARENA_MAX = -8  # malloc.h


def main(config: Config, reread: Callable[[], Config], plan: Plan | None = None) -> int:
    """Serve until SIGTERM or SIGINT; at SIGHUP, read the configuration again. `plan` is for handlers. Returns the exit status.

    Raises `ConfigError` for the file `web.config_file`, which was not read so far, and for `security.user`.
    """
    log.setup(config.log.level, config.log.format)
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)  # an arena for each thread would cost memory, and Python runs one thread at a time
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # before the first thread, which inherits it; they are waited for below
    notifier = Notifier()
    hub = Hub(config.records.capacity)
    gate = _gate(config.web.config_file)
    with _naming_the_user():
        become = _become(config, plan)
    broker = _broker(config) if become is not None else None
    supervisor = Supervisor(config, hub, broker)
    reloader = Reloader(config, supervisor, reread)
    handlers = _handlers(config, plan if become is None else replace(plan, user=None, group=None) if plan is not None else None)
    pages = Pages(config, supervisor, reloader.last, hub, handlers)
    try:
        server = Server(config.web.listen_address, config.web.telemetry_path, pages, config.web.public_records, gate=gate)
    except OSError as error:
        return _refuse(wording(config.web.listen_address, error), EXIT_BIND)
    try:
        if become is not None:
            with _naming_the_user():
                privileges.drop(*become, privileges.needed())  # before the first thread
            gate.reread()  # what it names has to be readable from now on, too
        server.start()
        if handlers is not None:
            hub.attach(handlers)
            handlers.start()
        try:
            supervisor.start()
        except Unusable as reason:
            return _refuse(str(reason), EXIT_CONFIG)
        logger.info("listening", extra=fields(address=config.web.listen_address, path=config.web.telemetry_path, version=__version__))
        notifier.ready()
        while (told := signal.sigtimedwait(_SIGNALS, _TICK_SECONDS)) is None or told.si_signo == signal.SIGHUP:
            if told is not None:
                notifier.reloading()
                reloader.run()
                notifier.ready()
            supervisor.tick()
            pages.tick()
            notifier.alive()
        notifier.stopping()
        logger.info("stopping", extra=fields(signal=signal.Signals(told.si_signo).name))
    finally:
        server.close()
        supervisor.stop()
        if handlers is not None:  # the last records have been published by now
            handlers.close()
        if broker is not None:
            broker.close()
    return 0


@contextlib.contextmanager
def _naming_the_user() -> Iterator[None]:
    try:
        yield
    except privileges.NoSuchUser as error:
        raise ConfigError(f"security.user: {error}") from None


def _become(config: Config, plan: Plan | None) -> tuple[int, int] | None:
    """User and group to go on as, without privileges; None where there are none, or they are to stay.

    Unless one is configured, it is the owner of the sinks' directory, where there are sinks: they are written by a child of ours.
    """
    if not config.security.drop_privileges or not privileges.has_any():
        return None
    if plan is None or plan.user is None or plan.group is None:
        return privileges.user_of(config.security.user)
    if config.security.user and privileges.user_of(config.security.user)[0] != plan.user:
        raise privileges.NoSuchUser(f"the sinks' directory belongs to another user ({plan.user}), who writes there")
    return plan.user, plan.group


def _broker(config: Config) -> Broker:
    from exporter.loaders.broker import Broker  # noqa: PLC0415 - an ordinary user does without

    return Broker(config.measures, config.procfs, config.detection.ebpf_bcc.interpreter or None)


def _handlers(config: Config, plan: Plan | None) -> Handlers | None:
    if plan is None:
        return None
    from exporter.handlers.parent import Handlers  # noqa: PLC0415 - most run without

    return Handlers(plan, config.log.level, config.log.format)


def _gate(web_config_file: str) -> Gate:
    if not web_config_file:
        return Open()
    from exporter.web.guard import Guard  # noqa: PLC0415 - most run without

    return Guard(web_config_file)


def _refuse(reason: str, status: int) -> int:
    print(f"shortproc-exporter: error: {reason}", file=sys.stderr)  # noqa: T201
    return status


class Pages:
    """What the server shows."""

    def __init__(self, config: Config, supervisor: Supervisor, last_reload: LastReload, hub: Hub, handlers: Handlers | None = None) -> None:
        self.hub = hub
        self._config = config
        self._supervisor = supervisor
        self._exposition = Exposition(config, supervisor.snapshot, last_reload, handlers)
        self._started = time.time()
        self._rates = Rates()

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """Body and content type."""
        return self._exposition.render(accept)

    def healthy(self) -> str | None:
        """Whether the supervising loop goes round."""
        return self._supervisor.stuck()

    def ready(self) -> str | None:
        """Whether a source runs."""
        return None if self._supervisor.ready else "no mode is active yet"

    def tick(self) -> None:
        """Called about each second, so that the page knows the rate of the last minutes."""
        with contextlib.suppress(SourceFailed, OSError):  # the supervisor's own tick deals with it
            self._note(self._supervisor.snapshot())

    def landing(self, names: bool) -> str:
        """The page at /."""
        recent = self.hub.recent()[: -MOST_RECORDS - 1 : -1] if names else None
        return render(self._status(names), self._config.web.telemetry_path, recent)

    def live(self) -> Json:
        """What changes on it."""
        return changes(self._status(names=True))

    def _note(self, snapshot: Snapshot) -> None:
        self._rates.note(time.monotonic(), snapshot.view.counts.total.short_exits)

    def _status(self, names: bool) -> Status:
        snapshot = self._supervisor.snapshot()
        self._note(snapshot)
        busiest, folded = self._supervisor.busiest(self._config.metrics.max_comms) if names else ([], [])
        comms = [(name, counts) for name, counts in busiest if any(counts.exits)]
        counts = snapshot.view.counts
        return Status(
            version=__version__,
            revision=version.revision(),
            mode=snapshot.mode,
            why=snapshot.why,
            rungs=tuple((mode, _state(mode, snapshot), state.reason) for mode, state in snapshot.rungs.items()),
            capture_ratio=snapshot.capture_ratio,
            threshold_seconds=self._config.detection.short_threshold_seconds,
            started=self._started,
            ended_processes=sum(counts.total.exits),
            short_processes=counts.total.short_exits,
            rates=(self._rates.per_second(5), self._rates.per_second(60), self._rates.per_second(300)),
            peak_per_second=snapshot.gauges.peak_per_second,
            bounds_seconds=self._config.metrics.runtime_buckets_seconds,
            buckets=tuple(counts.total.buckets),
            top_comms=tuple(_row(*each) for each in comms[:_ROWS]),
            top_cpu=tuple(_row(*each) for each in heapq.nlargest(_ROWS, comms, key=lambda each: each[1].short_cpu_ns)),
            folded=tuple(folded[:_ROWS]),
            lost=tuple((reason, n) for reason, n in counts.lost.items() if n),
            degraded=snapshot.degraded,
        )


def _row(comm: str, counts: ProcessCounts) -> Row:
    return Row(comm, counts.short_exits, sum(counts.exits), counts.cpu_ns / NS, counts.short_cpu_ns / NS)


def _state(mode: Mode, snapshot: Snapshot) -> str:
    if mode == snapshot.mode:
        return "active"
    return "usable" if snapshot.rungs[mode].usable else "unusable"
