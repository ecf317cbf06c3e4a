"""The web configuration file. It is reloaded when it or a file that it names changes. If it is bad, the previous policy stays."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

from exporter.config import loading
from exporter.config.problems import ConfigError, InvalidValue, Problem, one_line
from exporter.web import webconfig
from exporter.web.auth import Users
from exporter.web.limiter import Limiter
from exporter.web.policy import AccessPolicy
from exporter.web.tls import Material, Tls
from exporter.web.webconfig import TlsServer, WebConfig

logger = logging.getLogger(__name__)

_CHECK_SECONDS = 1.0
_SETTLED_NS = 2_000_000_000

Stamp = tuple[tuple[int, ...], ...]


class PolicyFile:
    """Provides the access policy of the file at `path`. The constructor raises `ConfigError` if the file is bad. Thread-safe."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._check_at = 0.0
        self._stamp: Stamp | None = None
        self._complaint = ""
        self._settings = WebConfig()
        self._material: Material | None = None
        self.last = AccessPolicy()
        self.reread()
        if self._settings.http_server_config.http2:
            logger.warning("HTTP/2 is not supported; HTTP/1.1 is used", extra={"fields": {"file": path, "key": "http_server_config.http2"}})

    def policy(self) -> AccessPolicy:
        """Return the policy in force. One thread a second checks whether the files changed; the others do not wait for it."""
        if time.monotonic() >= self._check_at and self._lock.acquire(blocking=False):
            try:
                self._reload_if_changed()
            finally:
                self._check_at = time.monotonic() + _CHECK_SECONDS
                self._lock.release()
        return self.last

    def reread(self) -> None:
        if os.path.exists(self._path) and not os.path.isfile(self._path):  # noqa: PTH110, PTH113 - an unreadable path is reported below
            raise ConfigError(f"{one_line(self._path)}: not a regular file")  # a pipe can be read only once, or never
        loading.read(self._path, self._apply)

    def _reload_if_changed(self) -> None:
        stamp = self._stamped()
        if stamp is not None and stamp == self._stamp:
            return
        self._stamp = None
        try:
            self.reread()
        except ConfigError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                logger.error("web configuration rejected; keeping the previous one", extra={"fields": {"reason": error}})  # noqa: TRY400
            return
        self._complaint = ""
        self._stamp = stamp if stamp == self._stamped() else None

    def _stamped(self) -> Stamp | None:
        """Return a value that changes with the content of any file; None if one cannot be read, or has changed too recently to tell."""
        paths = [self._path]
        if (tls := self._settings.tls_server_config) is not None:
            paths += [str(self._folder / name) for name in (tls.cert_file, tls.key_file, tls.client_ca_file) if name]
        try:
            found = [os.stat(path) for path in paths]  # noqa: PTH116 - follows links, as reading does
        except (OSError, ValueError):
            return None
        if max(each.st_ctime_ns for each in found) > time.time_ns() - _SETTLED_NS:
            return None
        return tuple((each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for each in found)

    @property
    def _folder(self) -> Path:
        return Path(self._path).parent

    def _apply(self, content: object) -> None:
        """Apply the content of the file. Unchanged parts keep their state."""
        settings = webconfig.read(content)
        if wrong := webconfig.weakness(self._settings, settings):
            raise wrong
        tls, last = settings.tls_server_config, self.last
        material = None if tls is None else Material.of(tls, self._folder)
        if (settings, material) == (self._settings, self._material):
            return
        limit, same = settings.rate_limit, self._settings
        policy = AccessPolicy(
            headers=settings.http_server_config.headers,
            tls=last.tls if (tls, material) == (same.tls_server_config, self._material) else _tls(tls, material),
            users=last.users if settings.basic_auth_users == same.basic_auth_users else Users(settings.basic_auth_users),
            limiter=last.limiter if limit == same.rate_limit else Limiter(limit.interval, limit.burst) if limit.interval else None,
        )
        if same != WebConfig():
            logger.info("web configuration reloaded", extra={"fields": {"file": self._path}})
        self._settings, self._material, self.last = settings, material, policy


def _tls(settings: TlsServer | None, material: Material | None) -> Tls | None:
    if settings is None or material is None:
        return None
    try:
        return Tls(settings, material)
    except OSError as error:  # no more descriptors
        raise InvalidValue(Problem(f"cannot be used now: {error}", "tls_server_config")) from None
