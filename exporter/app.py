"""Wires the parts together, and serves until a signal stops it."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from exporter import __version__
from exporter.config.options import Config, Log, Security
from exporter.config.problems import ConfigError
from exporter.loaders.direct import Direct
from exporter.model import ModeUnavailable
from exporter.process import log, memory, privileges
from exporter.process.log import fields
from exporter.process.sdnotify import Notifier
from exporter.process.signals import Signals
from exporter.records.arguments import reducer
from exporter.records.hub import Hub
from exporter.supervision.modes import loader_settings
from exporter.supervision.reload import Reloader
from exporter.supervision.supervisor import Supervisor
from exporter.web.listening import bind_error_message
from exporter.web.pages import Pages
from exporter.web.policy import Open, PolicySource
from exporter.web.server import Server

if TYPE_CHECKING:
    from exporter.handlers.parent import Handlers
    from exporter.handlers.plan import Plan
    from exporter.loaders.base import Settings
    from exporter.loaders.broker import Broker

logger = logging.getLogger(__name__)

_TICK_SECONDS = 1.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Handled even if the parent ignores them, as `nohup` and shells do: they control a daemon."""

EXIT_BIND = 1
EXIT_CONFIG = 2

_SWITCH_SECONDS = 0.001
"""After this time a thread that computes lets another one run. A scrape changes threads a few times, and Python's 5 ms would add up."""


def main(config: Config, reread: Callable[[], Config], plan: Plan | None = None, config_file: str | None = None) -> int:
    """Serve until SIGTERM or SIGINT; reload the configuration at SIGHUP. Returns the exit status.

    `reread` returns the configuration as it is now. `plan` has the handlers and sinks. Raises `ConfigError` if the file `web.config_file`
    is bad or the user `security.user` does not exist.
    """
    log.setup(config.log.level, config.log.format)
    sys.setswitchinterval(_SWITCH_SECONDS)
    memory.use_one_arena()
    signals = Signals(_SIGNALS)
    notifier = Notifier()
    hub = Hub(config.records.capacity, reducer(config.records))
    policies = _policies(config.web.config_file)
    become = _target_user(config.security, plan, config_file)
    settings = loader_settings(config)
    broker = _broker(settings) if become is not None else None
    supervisor = Supervisor(config, hub, broker or Direct(settings))
    reloader = Reloader(config, supervisor, reread)
    handlers = _handlers(config.log, plan if become is None else replace(plan, user=None, group=None) if plan is not None else None)
    pages = Pages(config, supervisor, reloader.last, hub, handlers)
    try:
        server = Server(config.web.listen_address, config.web.telemetry_path, pages, config.web.public_records, policies=policies)
    except OSError as error:
        return _refuse(bind_error_message(config.web.listen_address, error), EXIT_BIND)
    try:
        if become is not None:
            with _naming_the_user():
                privileges.drop(*become, privileges.needed_capabilities())  # before the first thread
            policies.reread()  # the files that it names must be readable as this user, too
        log.in_background()
        server.start()
        if handlers is not None:
            for consumer in handlers.consumers:
                hub.attach(consumer)
            if handlers.wants_events:
                hub.events.attach(handlers)
            handlers.start()
        try:
            supervisor.start()
        except ModeUnavailable as reason:
            return _refuse(str(reason), EXIT_CONFIG)
        logger.info("listening", extra=fields(address=config.web.listen_address, path=config.web.telemetry_path, version=__version__))
        notifier.ready()
        memory.release_unused()
        while (received := signals.wait(_TICK_SECONDS)) is None or received is signal.SIGHUP:
            if received is not None:
                notifier.reloading()
                reloader.run()
                notifier.ready()
            supervisor.tick()
            pages.tick()
            server.tick()
            notifier.watchdog()
        notifier.stopping()
        logger.info("stopping", extra=fields(signal=received.name))
    finally:
        _end(server, supervisor, handlers, broker)
    return 0


def _end(server: Server, supervisor: Supervisor, handlers: Handlers | None, broker: Broker | None) -> None:
    server.close()
    supervisor.stop()
    if handlers is not None:  # the last records have been published by now
        handlers.close()
    if broker is not None:
        broker.close()
    log.finish()


@contextlib.contextmanager
def _naming_the_user() -> Iterator[None]:
    try:
        yield
    except privileges.NoSuchUser as error:
        raise ConfigError(f"security.user: {error}") from None


def _target_user(security: Security, plan: Plan | None, config_file: str | None) -> tuple[int, int] | None:
    """Return user and group to switch to, if any, and warn if they cannot read the configuration again."""
    writer = None if plan is None else plan.writer
    with _naming_the_user():
        become = privileges.target_user(security.user, drop=security.drop_privileges, writer=writer)
    if become is not None and config_file is not None and (warning := privileges.reload_warning(config_file, *become)):
        logger.warning("%s", warning)
    return become


def _broker(settings: Settings) -> Broker:
    from exporter.loaders.broker import Broker  # noqa: PLC0415 - not needed without privileges to drop

    return Broker(settings)


def _handlers(log_options: Log, plan: Plan | None) -> Handlers | None:
    if plan is None:
        return None
    from exporter.handlers.parent import Handlers  # noqa: PLC0415 - most run without

    return Handlers(plan, log_options.level, log_options.format)


def _policies(web_config_file: str) -> PolicySource:
    if not web_config_file:
        return Open()
    from exporter.web.policy_file import PolicyFile  # noqa: PLC0415 - most run without

    return PolicyFile(web_config_file)


def _refuse(reason: str, status: int) -> int:
    print(f"shortproc-exporter: error: {reason}", file=sys.stderr)  # noqa: T201
    return status
