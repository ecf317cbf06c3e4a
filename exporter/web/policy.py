"""On what terms a connection is served: secured or not, for whom, how often, under which headers."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from exporter.web.messages import Request, Response

if TYPE_CHECKING:  # they are made by whoever configures them; most run without
    from exporter.web.auth import Users
    from exporter.web.limiter import Limiter
    from exporter.web.tls import Tls


class Refused(Exception):
    """A request is not let in."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    headers: Mapping[str, str] = field(default_factory=dict)
    """Added to every answer, in place of our own of the same name."""
    tls: Tls | None = None
    users: Users | None = None
    limiter: Limiter | None = None

    def admit(self, request: Request, peer: str) -> bool:
        """Say whether a password told who asks, or raise `Refused`. Takes as long as its check, which `peer` can't have many of."""
        if self.limiter is not None and not self.limiter.allows():
            raise Refused(Response.line(HTTPStatus.TOO_MANY_REQUESTS, "more requests than rate_limit allows"))
        if self.users is None:
            return False
        given = _credentials(request.headers.get("authorization", ""))
        known = given is not None and self.users.know(*given, peer)
        if known is None:
            raise Refused(Response.line(HTTPStatus.SERVICE_UNAVAILABLE, "too many passwords to check", **{"Retry-After": "1"}))
        if not known:
            raise Refused(Response.line(HTTPStatus.UNAUTHORIZED, "name and password are needed", **{"WWW-Authenticate": _CHALLENGE}))
        return True


class PolicySource(Protocol):
    """Where terms come from. They are equal only if they are the same object."""

    last: AccessPolicy
    """Those in force, without looking whether they changed."""

    def policy(self) -> AccessPolicy:
        """Those in force. May read files."""

    def reread(self) -> None:
        """Read all of it anew. Raises `ConfigError` where that can't be."""


class Open:
    """Everyone is served, as far as the site itself lets them."""

    last = AccessPolicy()

    def policy(self) -> AccessPolicy:
        return self.last

    def reread(self) -> None:
        pass


_CHALLENGE = 'Basic realm="shortproc-exporter", charset="UTF-8"'


def _credentials(authorization: str) -> tuple[bytes, bytes] | None:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(" "), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return (name, password) if colon else None
