"""The keys of a web configuration file, with the names and defaults of Prometheus' exporter-toolkit.

https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from exporter.config import durations
from exporter.config.checks import Check, boolean, integer, list_of, one_of, text
from exporter.config.problems import InvalidValue, Problem, gathering, shown
from exporter.config.sections import document, group, option, section
from exporter.model import NS
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
"""OpenSSL's names of TLS 1.2 cipher suites, by the names in Go's `tls.CipherSuites()`."""
CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
VERSIONS = {"TLS10": "TLSv1", "TLS11": "TLSv1_1", "TLS12": "TLSv1_2", "TLS13": "TLSv1_3"}
"""Python's names of TLS versions, oldest first."""
VERIFYING = ("VerifyClientCertIfGiven", "RequireAndVerifyClientCert")

_NOT_VERIFYING = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
_MOST_USERS = 1000


def _but(check: Check, refusal: Callable[[str], str | None]) -> Check:
    """Return `check`, but reject text for which `refusal` returns a reason."""

    def read(value: object) -> Any:
        if isinstance(value, str) and (reason := refusal(value)):
            raise InvalidValue(f"{shown(value)} {reason}")
        return check.read(value)

    return Check(read, check.schema, check.wanted)


def _unverified(value: str) -> str | None:
    if value not in _NOT_VERIFYING:
        return None
    return "would accept certificates without verifying them, which Python's ssl cannot do: use RequireAndVerifyClientCert"


def _suite(value: str) -> str | None:
    return None if value in SUITES or value in TLS13_SUITES else "is not the name of a cipher suite in Go's tls.CipherSuites()"


def _mapping(about: str, read_item: Callable[[str, object], Any]) -> Check:
    """Accept a mapping with any keys. `read_item` returns the value to keep for an item, or None."""
    wanted = f"a mapping of {about}"

    def read(value: object) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise InvalidValue(f"{shown(value)} is not {wanted}")
        kept = {}
        with gathering() as found:
            for key, item in value.items():
                with found.inside(key):
                    kept[key] = read_item(key, item)
        return {key: item for key, item in kept.items() if item is not None}

    return Check(read, {"type": ["object", "null"]}, wanted)


def _header(name: str, value: object) -> str | None:
    if name not in HEADERS:
        raise InvalidValue(Problem("unknown key", known=tuple(HEADERS)))
    if value in (None, ""):
        return None
    if choices := HEADERS[name]:
        return str(one_of(*choices).read(value))
    return str(text("a header value in printable ASCII", r"[!-~]([ -~]*[!-~])?").read(value))


def _user(name: str, value: object) -> str:
    if ":" in name:
        raise InvalidValue("a user name cannot contain a colon in basic authentication")
    reason = auth.refusal(value if isinstance(value, str) else "")
    if reason is not None:
        raise InvalidValue(reason)
    return str(value)


_USERS = _mapping("user names to bcrypt hashes", _user)


def _users(value: object) -> dict[str, str]:
    if isinstance(value, dict) and len(value) > _MOST_USERS:
        raise InvalidValue(f"{len(value)} users are more than {_MOST_USERS}")
    users: dict[str, str] = _USERS.read(value)
    return users


_INTERVAL = "a duration with its unit, such as 1s or 100ms"


def _interval(value: object) -> float:
    """Read a duration as Go writes it. Go reads a plain number as nanoseconds, so a plain number is rejected."""
    if value in (0, "0") and not isinstance(value, bool):
        return 0.0
    ns = durations.parse(value) if isinstance(value, str) and durations.has_unit(value) else None
    if ns is None:
        raise InvalidValue(f"{shown(value)} is not {_INTERVAL}")
    return ns / NS


_FILE = text("the path of a file", r"[^\0]*")
_PEM = text("text in PEM", r"[\s\S]*")


def _secret(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidValue("not text in PEM")  # without the value, which is a private key
    return value


@dataclass(frozen=True, slots=True)
class TlsServer:
    cert_file: str = option("", _FILE, "Certificate of the server, with those that lead to its root.")
    key_file: str = option("", _FILE, "Key of the certificate.")
    cert: str = option("", _PEM, "The same as cert_file, inline.")
    key: str = option("", Check(_secret, {}, "text in PEM"), "The same as key_file, inline.")
    client_auth_type: str = option(
        "NoClientCert", _but(one_of("NoClientCert", *VERIFYING), _unverified), "Whether clients need a certificate."
    )
    client_ca_file: str = option("", _FILE, "Certificates of the authorities of clients.")
    client_ca: str = option("", _PEM, "The same as client_ca_file, inline.")
    client_allowed_sans: tuple[str, ...] = option((), list_of(text("a name", r".+"), 1000), "Allowed names of clients.")
    min_version: str = option("TLS12", one_of(*VERSIONS), "Oldest TLS version.")
    max_version: str = option("TLS13", one_of(*VERSIONS), "Newest TLS version.")
    cipher_suites: tuple[str, ...] = option((), list_of(_but(text("the name of a cipher suite", r"\w+"), _suite), 20), "Suites of TLS 1.2.")
    prefer_server_cipher_suites: bool = option(True, boolean(), "Whether the server's order of suites counts, not the client's.")
    curve_preferences: tuple[str, ...] = option((), list_of(one_of(*CURVES), len(CURVES)), "Curves.")


def _tls(value: object) -> TlsServer | None:
    """Return None for an empty section: no TLS."""
    if value is None or value == {}:
        return None
    tls: TlsServer = section(TlsServer).read(value)
    if problems := [Problem(reason, key) for key, reason in (*_certificate_problems(tls), *_client_problems(tls), *_version_problems(tls))]:
        raise InvalidValue(*problems)
    return tls


def _certificate_problems(tls: TlsServer) -> Iterator[tuple[str, str]]:
    for key in ("cert", "key", "client_ca"):
        inline, in_file = getattr(tls, key), getattr(tls, f"{key}_file")
        if inline and in_file:
            yield key, f"set either {key} or {key}_file, not both"
        if key != "client_ca" and not inline and not in_file:
            yield f"{key}_file", f"missing: set it, or {key}"


def _client_problems(tls: TlsServer) -> Iterator[tuple[str, str]]:
    verifies = tls.client_auth_type in VERIFYING
    authority = "client_ca" if tls.client_ca else "client_ca_file"
    if verifies and not getattr(tls, authority):
        yield authority, "missing: without it, a certificate from any public authority would be accepted"
    for key in (authority, "client_allowed_sans"):
        if getattr(tls, key) and not verifies:
            yield key, f"has no effect: set client_auth_type: {VERIFYING[1]} too"


def _version_problems(tls: TlsServer) -> Iterator[tuple[str, str]]:
    if list(VERSIONS).index(tls.min_version) > list(VERSIONS).index(tls.max_version):
        yield "max_version", f"{tls.max_version} is older than min_version ({tls.min_version})"
    if tls.cipher_suites and tls.min_version != "TLS13" and not set(tls.cipher_suites) & set(SUITES):
        yield "cipher_suites", "lists no suite of TLS 1.2: to allow TLS 1.3 only, set min_version: TLS13"
    if len(tls.curve_preferences) > 1:
        yield "curve_preferences", "lists more than one curve, and Python's ssl supports one"


@dataclass(frozen=True, slots=True)
class HttpServer:
    http2: bool | None = option(None, boolean(), "Not supported: true logs a warning.")
    headers: dict[str, str] = field(
        default_factory=dict, metadata={"check": _mapping("headers to values", _header), "about": "Headers of every response."}
    )


@dataclass(frozen=True, slots=True)
class RateLimit:
    interval: float = option(0.0, Check(_interval, {}, _INTERVAL), "Time after which one more request is allowed; 0 for no limit.")
    burst: int = option(0, integer(0, 1_000_000), "Requests that are allowed at once.")


def _rate_limit(value: object) -> RateLimit:
    limit: RateLimit = section(RateLimit).read(value)
    if limit.interval and not limit.burst:
        raise InvalidValue(Problem("is 0, which would reject every request", "burst"))
    return limit


@dataclass(frozen=True, slots=True)
class WebConfig:
    tls_server_config: TlsServer | None = field(
        default=None, metadata={"check": Check(_tls, {}, "a mapping"), "about": "HTTPS.", "section": TlsServer}
    )
    http_server_config: HttpServer = group(HttpServer, "Options of HTTP.")
    basic_auth_users: dict[str, str] = field(
        default_factory=dict, metadata={"check": Check(_users, {}, _USERS.wanted), "about": "User names and bcrypt hashes."}
    )
    rate_limit: RateLimit = field(
        default_factory=RateLimit,
        metadata={"check": Check(_rate_limit, {}, "a mapping"), "about": "Limit of requests.", "section": RateLimit},
    )


def read(content: object) -> WebConfig:
    """Return the checked content of a file. Raises `InvalidValue`."""
    settings: WebConfig = document(WebConfig).read(content)
    return settings


def weakness(old: WebConfig, new: WebConfig) -> InvalidValue | None:
    """Return the protections of `old` that `new` lacks, or None. A file may be read while it is written, and must not remove any then."""
    before, after = old.tls_server_config, new.tls_server_config
    lost = "basic_auth_users" if old.basic_auth_users and not new.basic_auth_users else ""
    if before is not None:
        if after is None:
            lost = "tls_server_config"
        elif before.client_auth_type == VERIFYING[1] != after.client_auth_type:
            lost = "tls_server_config.client_auth_type"
        elif before.client_allowed_sans and not after.client_allowed_sans:
            lost = "tls_server_config.client_allowed_sans"
    return InvalidValue(Problem("protection cannot be removed while running: restart the exporter", lost)) if lost else None
