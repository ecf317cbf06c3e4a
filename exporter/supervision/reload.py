"""Reloads the configuration at SIGHUP. A bad one is rejected as a whole; the previous one stays."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from exporter.config.loading import after_reload
from exporter.config.options import Config
from exporter.config.problems import ConfigError
from exporter.model import ModeUnavailable
from exporter.process import log
from exporter.process.log import fields
from exporter.supervision.supervisor import Supervisor

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class LastReload:
    """The state of reloads, for metrics. The first read at start counts."""

    successful: bool = True
    succeeded_at: float = field(default_factory=time.time)
    """Unix time."""


class Reloader:
    """`reread` returns the configuration from flags and file, or raises `ConfigError`."""

    def __init__(self, config: Config, supervisor: Supervisor, reread: Callable[[], Config]) -> None:
        self.last = LastReload()
        self._config = config
        self._supervisor = supervisor
        self._reread = reread

    def run(self) -> None:
        """Reload, and apply the options that can change at run time."""
        try:
            config, waiting = after_reload(self._config, self._reread())
            self._supervisor.reconfigure(config)
        except (ConfigError, ModeUnavailable) as refusal:
            self.last.successful = False
            logger.error("configuration rejected; keeping the previous one", extra=fields(reason=refusal))  # noqa: TRY400
            return
        self._config = config
        log.setup(config.log.level, config.log.format)
        self.last.successful, self.last.succeeded_at = True, time.time()
        logger.info("configuration reloaded")
        if waiting:
            logger.warning("some changes need a restart", extra=fields(keys=", ".join(waiting)))
