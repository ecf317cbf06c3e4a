"""The access policy of a connection: TLS, users, rate limit and headers."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from exporter.web.messages import Request, Response

if TYPE_CHECKING:  # `policy_file` imports them only if needed
    from exporter.web.auth import Users
    from exporter.web.limiter import Limiter
    from exporter.web.tls import Tls


class Refused(Exception):
    """A request is rejected; `response` is the answer."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    headers: Mapping[str, str] = field(default_factory=dict)
    """Added to every answer. They override ours of the same name."""
    tls: Tls | None = None
    users: Users | None = None
    limiter: Limiter | None = None

    def admit(self, request: Request, peer: str) -> bool:
        """Return whether the request has a valid password. Raises `Refused`. May wait for the check of the password."""
        if self.limiter is not None and not self.limiter.allows():
            raise Refused(Response.line(HTTPStatus.TOO_MANY_REQUESTS, "too many requests: rate_limit is exceeded"))
        if self.users is None:
            return False
        given = _credentials(request.headers.get("authorization", ""))
        known = given is not None and self.users.verify(*given, peer)
        if known is None:
            raise Refused(Response.line(HTTPStatus.SERVICE_UNAVAILABLE, "too many passwords to check: try again", **{"Retry-After": "1"}))
        if not known:
            raise Refused(Response.line(HTTPStatus.UNAUTHORIZED, "user name and password required", **{"WWW-Authenticate": _CHALLENGE}))
        return True


class PolicySource(Protocol):
    """Provides the access policy. A changed policy is always a new object."""

    last: AccessPolicy
    """The policy in force, without checking whether the file changed."""

    def policy(self) -> AccessPolicy:
        """Return the policy in force. May read files."""

    def reread(self) -> None:
        """Read everything again. Raises `ConfigError`."""


class Open:
    """A policy without any restriction."""

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
