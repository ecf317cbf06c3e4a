"""TLS for connections, as `tls_server_config` describes it.

Certificates, keys and authorities are read completely before OpenSSL uses them. So old and new files are never mixed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import stat
from collections.abc import Iterator
from dataclasses import dataclass, fields
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any

from exporter.config.problems import InvalidValue, Problem, gathering, shown
from exporter.process.rate_limited_log import RateLimitedLog
from exporter.web.webconfig import CURVES, SUITES, VERSIONS, TlsServer

logger = logging.getLogger(__name__)

_MAX_BYTES = 1 << 20
_MOST_SESSIONS = 500
_AUTHENTICATION = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_OLD = ("TLS10", "TLS11")


@dataclass(frozen=True, slots=True)
class Material:
    """The server's certificate and key, and the authorities of clients, as PEM."""

    cert: bytes
    key: bytes
    client_ca: bytes

    @classmethod
    def of(cls, tls: TlsServer, folder: Path) -> Material:
        """Read the files that the settings name. Relative paths start at `folder`. Raises `InvalidValue`."""
        content = {}
        with gathering() as found:
            for each in fields(cls):
                with found.inside("tls_server_config"):
                    content[each.name] = _content(tls, each.name, folder)
        return cls(**content)


class Socket(ssl.SSLSocket):
    """A client's socket. As with a plain one, a timeout covers the whole call, and any thread may call `shutdown`."""

    certified = False
    """Whether the client has sent a verified certificate."""

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        try:
            return super().recv(buflen, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def shutdown(self, how: int) -> None:
        """Close TLS too, if only our side has ended, without waiting for an answer."""
        if how == socket.SHUT_WR:
            with contextlib.suppress(OSError, ValueError):
                self.settimeout(0)
                self.unwrap()
        socket.socket.shutdown(self, how)  # SSLSocket.shutdown would make it a plain socket while its thread uses it


class Tls:
    """Makes TLS connections. Changed settings are always a new object. Thread-safe."""

    def __init__(self, settings: TlsServer, material: Material) -> None:
        """Raises `InvalidValue`."""
        self._settings = settings
        self._material = material
        self._context = _context(settings, material)
        if doubt := _doubt(self._context, material.cert):
            key = f"tls_server_config.{_given(settings, 'cert')}"
            logger.warning("clients will refuse the certificate: %s", doubt, extra={"fields": {"key": key}})
        self._failures = RateLimitedLog(logger)

    def wrap(self, client: socket.socket) -> Socket:
        """Wrap a socket, without the handshake."""
        if self._context.session_stats()["number"] > _MOST_SESSIONS:
            # OpenSSL would keep 20,000 sessions of clients without tickets, which hostile clients can make for free
            self._context = _context(self._settings, self._material)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else answers wait 40 ms for the session tickets' acknowledgement
        wrapped = self._context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
        assert isinstance(wrapped, Socket)  # noqa: S101 - for the type checker
        return wrapped

    def shake_hands(self, client: Socket, peer: str) -> bool:
        """Do the handshake within the socket's timeout; return whether the client may send requests. Raises `OSError`."""
        try:
            client.do_handshake()
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", "") or (error.reason or str(error)).lower().replace("_", " ")
            self._failures.warning("TLS handshake failed", peer=peer, reason=reason)
            return False
        certificate: dict[str, Any] = client.getpeercert() or {}
        client.certified = bool(certificate)
        allowed = self._settings.client_allowed_sans
        if certificate and allowed and not _names(certificate) & set(allowed):
            reason = "no name in the client's certificate is one of client_allowed_sans"
            self._failures.warning("TLS handshake failed", peer=peer, reason=reason)
            return False
        return True


def _content(tls: TlsServer, key: str, folder: Path) -> bytes:
    if inline := getattr(tls, key):
        return str(inline).encode()
    name = getattr(tls, f"{key}_file")
    if not name:
        return b""
    path = folder / name
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe may block forever
            raise InvalidValue(Problem(f"{shown(str(path))} is not a regular file", f"{key}_file"))
        with path.open("rb") as file:
            content: bytes = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidValue(Problem(f"{shown(str(path))} cannot be read: {reason.lower()}", f"{key}_file")) from None
    if len(content) > _MAX_BYTES:
        raise InvalidValue(Problem(f"{shown(str(path))} is larger than {_MAX_BYTES >> 20} MiB", f"{key}_file"))
    return content


def _context(settings: TlsServer, material: Material) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslsocket_class = Socket
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    _limit(context, settings)
    _load_certificate(context, settings, material)
    if material.client_ca:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as in Go, all certificates in the file are trusted, not only roots
        if reason := _not_certificates(context, material.client_ca):
            raise _invalid(_given(settings, "client_ca"), f"contains no valid certificate: {reason}")
    context.verify_mode = _AUTHENTICATION[settings.client_auth_type]
    return context


def _limit(context: ssl.SSLContext, settings: TlsServer) -> None:
    for key in ("min_version", "max_version"):
        version = getattr(settings, key)
        if version in _OLD and not (ssl.HAS_TLSv1 and ssl.HAS_TLSv1_1 and context.security_level == 0):
            raise _invalid(
                key, f"{version} is not supported by this OpenSSL at its security level {context.security_level}: use TLS12 or TLS13"
            )
    context.minimum_version = ssl.TLSVersion[VERSIONS[settings.min_version]]
    context.maximum_version = ssl.TLSVersion[VERSIONS[settings.max_version]]
    if not settings.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if suites := [SUITES[suite] for suite in settings.cipher_suites if suite in SUITES]:
        with contextlib.suppress(ssl.SSLError):  # none of them can be used
            context.set_ciphers(":".join(suites))
        if missing := set(suites) - {str(each["name"]) for each in context.get_ciphers()}:
            raise _invalid("cipher_suites", f"this OpenSSL does not support {', '.join(sorted(missing))}")
    for curve in settings.curve_preferences:
        try:
            context.set_ecdh_curve(CURVES[curve])
        except (ssl.SSLError, ValueError):
            raise _invalid("curve_preferences", f"{curve} is not supported by the ssl module of this Python") from None


def _load_certificate(context: ssl.SSLContext, settings: TlsServer, material: Material) -> None:
    cert, key = _given(settings, "cert"), _given(settings, "key")
    if b"ENCRYPTED" in material.key:
        raise _invalid(key, "is encrypted: store it without a password, since nobody is there to type it")
    try:
        with _file(material.cert) as cert_path, _file(material.key) as key_path:
            context.load_cert_chain(cert_path, key_path, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise _invalid(key, f"does not belong to the certificate in {cert}") from None
        if reason := _not_certificates(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), material.cert):
            raise _invalid(cert, f"contains no valid certificate: {reason}") from None
        if error.reason is not None and error.library == "SSL":
            raise _invalid(cert, f"cannot be used: {_reason(error)}") from None
        raise _invalid(key, f"contains no valid key: {_reason(error)}") from None


def _not_certificates(context: ssl.SSLContext, pem: bytes) -> str | None:
    """Make a context trust certificates. Returns why that is not possible, or None."""
    try:
        with _file(pem) as path:
            context.load_verify_locations(path)
    except ssl.SSLError as error:
        return _reason(error)
    return None


def _doubt(context: ssl.SSLContext, cert: bytes) -> str | None:
    """Return why a client would reject the certificate, or None. It checks dates and purpose, but neither name nor issuer."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    with _file(cert) as path:
        client.load_verify_locations(path)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = client.wrap_bio(back, there), context.wrap_bio(there, back, server_side=True)
    try:
        for end in ends * 3:  # more rounds if the server asks for another curve
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except ssl.SSLError:  # no common version or suite, or a client certificate is required
        return None
    return None


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "not PEM").lower().replace("_", " ")


@contextlib.contextmanager
def _file(content: bytes) -> Iterator[str]:
    """Return the path of a file in memory: Python's ssl reads some things only from files."""
    with open(os.memfd_create("pem"), "wb") as file:  # noqa: PTH123
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def _names(certificate: dict[str, Any]) -> set[str]:
    """Return all names in a certificate, as Go writes them."""
    names = set()
    for kind, name in certificate.get("subjectAltName", ()):
        if kind in ("DNS", "email", "URI"):
            names.add(name)
        elif kind == "IP Address":
            with contextlib.suppress(ValueError):
                ip = ip_address(name.strip())
                names.add(str((ip.ipv4_mapped if isinstance(ip, IPv6Address) else None) or ip))
    return names


def _given(settings: TlsServer, key: str) -> str:
    return key if getattr(settings, key) else f"{key}_file"


def _invalid(key: str, reason: str) -> InvalidValue:
    return InvalidValue(Problem(reason, f"tls_server_config.{key}"))
