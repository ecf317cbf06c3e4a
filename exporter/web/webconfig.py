"""What a web configuration file may hold: the schema of Prometheus' exporter-toolkit, its names and its defaults.

https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from exporter.config import checks
from exporter.config.checks import Check, InvalidValue, boolean, integer, list_of, one_of, shown, suggestion, text
from exporter.config.options import option
from exporter.web import auth

HEADERS: dict[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}
TLS13_SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
SUITES = {
    f"TLS_ECDHE_{key}_WITH_{theirs}": f"ECDHE-{key}-{ours}"
    for key in ("ECDSA", "RSA")
    for theirs, ours in {
        "AES_128_GCM_SHA256": "AES128-GCM-SHA256",
        "AES_256_GCM_SHA384": "AES256-GCM-SHA384",
        "CHACHA20_POLY1305_SHA256": "CHACHA20-POLY1305",
        "AES_128_CBC_SHA": "AES128-SHA",
        "AES_256_CBC_SHA": "AES256-SHA",
    }.items()
}
"""OpenSSL's names of the TLS 1.2 suites that Go's `tls.CipherSuites()` has, by the names there."""
CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
VERSIONS = {"TLS10": "TLSv1", "TLS11": "TLSv1_1", "TLS12": "TLSv1_2", "TLS13": "TLSv1_3"}
"""Python's names of them, the oldest first."""
VERIFYING = ("VerifyClientCertIfGiven", "RequireAndVerifyClientCert")

_NOT_VERIFYING = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
_MOST_USERS = 1000
_DURATION = re.compile(r"0|([0-9]+(\.[0-9]*)?(ns|us|µs|μs|ms|s|m|h))+")
_PART = re.compile(r"([0-9.]+)([a-zµμ]+)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def _but(check: Check, refusal: Callable[[object], str | None]) -> Check:
    """Refuse some values with a reason of their own."""

    def read(value: object) -> Any:
        if reason := refusal(value):
            raise InvalidValue(f"{shown(value)} {reason}")
        return check.read(value)

    return Check(read, check.schema)


def _unverified(value: object) -> str | None:
    if value not in _NOT_VERIFYING:
        return None
    return "would take certificates that nobody verified, which Python's ssl can't; RequireAndVerifyClientCert verifies them"


def _suite(value: object) -> str | None:
    return None if value in SUITES or value in TLS13_SUITES else "is not the name of a suite that Go's tls.CipherSuites() has"


def _mapping(about: str, read_item: Callable[[str, object], Any]) -> Check:
    """Accept a mapping whose keys are no options; `read_item` gives what to keep of one, or None."""

    def read(value: object) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise InvalidValue(f"{shown(value)} is not a mapping of {about}")
        kept = {}
        for key, item in value.items():
            try:
                kept[key] = read_item(key, item)
            except InvalidValue as wrong:
                raise wrong.inside(key) from None
        return {key: item for key, item in kept.items() if item is not None}

    return Check(read, {"type": ["object", "null"]})


def _header(name: str, value: object) -> str | None:
    if name not in HEADERS:
        raise InvalidValue(f"unknown key{suggestion(name, HEADERS) or ' (known here: ' + ', '.join(HEADERS) + ')'}")
    if value in (None, ""):
        return None
    if choices := HEADERS[name]:
        return str(one_of(*choices).read(value))
    return str(text("a value of a header, in printable ASCII", r"[!-~]([ -~]*[!-~])?").read(value))


def _user(name: str, value: object) -> str:
    if ":" in name:
        raise InvalidValue("has a colon, which ends a name in basic authentication")
    reason = auth.refusal(value if isinstance(value, str) else "")
    if reason is not None:
        raise InvalidValue(reason)
    return str(value)


def _users(value: object) -> dict[str, str]:
    if isinstance(value, dict) and len(value) > _MOST_USERS:
        raise InvalidValue(f"more than {_MOST_USERS} users")
    users: dict[str, str] = _mapping("names to bcrypt hashes", _user).read(value)
    return users


def _interval(value: object) -> float:
    """Read a duration as Go writes it. A bare number would be nanoseconds there, which nobody means."""
    if value == 0 and not isinstance(value, bool):
        return 0.0
    if not isinstance(value, str) or len(value) > 40 or not _DURATION.fullmatch(value):
        raise InvalidValue(f"{shown(value)} is not a duration with its unit, such as 1s or 100ms")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))


_FILE = text("the path of a file", r"[^\0]*")
_PEM = text("text in PEM", r"[\s\S]*")


def _secret(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidValue("is not text in PEM")
    return value


@dataclass(frozen=True, slots=True)
class TlsServer:
    cert_file: str = option("", _FILE, "Certificate, and those that lead to its root.")
    key_file: str = option("", _FILE, "Its key.")
    cert: str = option("", _PEM, "The same as cert_file, inline.")
    key: str = option("", Check(_secret, {}), "The same as key_file, inline.")
    client_auth_type: str = option("NoClientCert", _but(one_of("NoClientCert", *VERIFYING), _unverified), "What is asked of clients.")
    client_ca_file: str = option("", _FILE, "Who certifies clients.")
    client_ca: str = option("", _PEM, "The same as client_ca_file, inline.")
    client_allowed_sans: tuple[str, ...] = option((), list_of(text("a name", r".+"), 1000), "Names, one of which a client's must be.")
    min_version: str = option("TLS12", one_of(*VERSIONS), "Oldest TLS.")
    max_version: str = option("TLS13", one_of(*VERSIONS), "Newest TLS.")
    cipher_suites: tuple[str, ...] = option((), list_of(_but(text("a name", r"\w+"), _suite), 20), "Suites of TLS 1.2.")
    prefer_server_cipher_suites: bool = option(True, boolean(), "Whether the order here counts, not that of the client.")
    curve_preferences: tuple[str, ...] = option((), list_of(one_of(*CURVES), len(CURVES)), "Curves.")


def _tls(value: object) -> TlsServer | None:
    """An empty section asks for no TLS; one with any key does."""
    if value is None or value == {}:
        return None
    tls: TlsServer = checks.section(TlsServer).read(value)
    for key in ("cert", "key", "client_ca"):
        if getattr(tls, key) and getattr(tls, f"{key}_file"):
            raise InvalidValue(f"contradicts {key}_file").inside(key)
        if key != "client_ca" and not getattr(tls, key) and not getattr(tls, f"{key}_file"):
            raise InvalidValue(f"is missing, and so is {key}").inside(f"{key}_file")
    _check_clients(tls)
    if list(VERSIONS).index(tls.min_version) > list(VERSIONS).index(tls.max_version):
        raise InvalidValue(f"{tls.max_version} is below min_version").inside("max_version")
    if tls.cipher_suites and tls.min_version != "TLS13" and not set(tls.cipher_suites) & set(SUITES):
        raise InvalidValue("names no suite of TLS 1.2; for TLS 1.3 alone, set min_version: TLS13").inside("cipher_suites")
    if len(tls.curve_preferences) > 1:
        raise InvalidValue("names more than one curve, and Python's ssl takes one alone").inside("curve_preferences")
    return tls


def _check_clients(tls: TlsServer) -> None:
    verifies = tls.client_auth_type in VERIFYING
    authority = "client_ca" if tls.client_ca else "client_ca_file"
    if verifies and not getattr(tls, authority):
        raise InvalidValue("is missing: without it, whoever has a certificate from any public authority would be let in").inside(authority)
    for key in (authority, "client_allowed_sans"):
        if getattr(tls, key) and not verifies:
            raise InvalidValue(f"has no effect without client_auth_type: {VERIFYING[1]}").inside(key)


@dataclass(frozen=True, slots=True)
class HttpServer:
    http2: bool | None = option(None, boolean(), "Whether HTTP/2 is spoken. It is not, here.")
    headers: dict[str, str] = field(
        default_factory=dict, metadata={"check": _mapping("headers to values", _header), "about": "Added to each answer."}
    )


@dataclass(frozen=True, slots=True)
class RateLimit:
    interval: float = option(0.0, Check(_interval, {}), "Time in which one more request is allowed; 0 for no limit.")
    burst: int = option(0, integer(0, 1_000_000), "How many requests may come at once.")


def _rate_limit(value: object) -> RateLimit:
    limit: RateLimit = checks.section(RateLimit).read(value)
    if limit.interval and not limit.burst:
        raise InvalidValue("is 0, which would refuse every request").inside("burst")
    return limit


@dataclass(frozen=True, slots=True)
class WebConfig:
    tls_server_config: TlsServer | None = field(default=None, metadata={"check": Check(_tls, {}), "about": "HTTPS."})
    http_server_config: HttpServer = field(
        default_factory=HttpServer, metadata={"check": checks.section(HttpServer), "about": "How HTTP is spoken."}
    )
    basic_auth_users: dict[str, str] = field(
        default_factory=dict, metadata={"check": Check(_users, {}), "about": "Names and bcrypt hashes."}
    )
    rate_limit: RateLimit = field(default_factory=RateLimit, metadata={"check": Check(_rate_limit, {}), "about": "Limit of requests."})


def read(content: object) -> WebConfig:
    """Check what a file holds, or raise `InvalidValue`, with its key."""
    settings: WebConfig = checks.section(WebConfig).read(content)
    return settings


def weakness(old: WebConfig, new: WebConfig) -> InvalidValue | None:
    """Say what protects in `old` and not in `new`: a file that is being written may be read half way, and is not to open the door."""
    before, after = old.tls_server_config, new.tls_server_config
    lost = "basic_auth_users" if old.basic_auth_users and not new.basic_auth_users else ""
    if before is not None:
        if after is None:
            lost = "tls_server_config"
        elif before.client_auth_type == VERIFYING[1] != after.client_auth_type:
            lost = "tls_server_config.client_auth_type"
        elif before.client_allowed_sans and not after.client_allowed_sans:
            lost = "tls_server_config.client_allowed_sans"
    return InvalidValue("is taken away, which takes a restart", lost) if lost else None
