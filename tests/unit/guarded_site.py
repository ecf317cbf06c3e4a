"""A web server behind a web configuration, and its clients."""

from __future__ import annotations

import contextlib
import http.client
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from exporter.web import policy_file
from exporter.web.limits import Limits
from exporter.web.policy_file import PolicyFile
from tests.unit import certificates
from tests.unit.pages import record
from tests.unit.web_clients import PATIENCE, Running

pytest.importorskip("bcrypt", reason="basic authentication needs it")

ELSEWHERE = {"Host": "exporter.example"}


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Site(Running):
    """A server with a web configuration, and ways to talk to it."""

    def __init__(self, folder: Path, text: str, limits: Limits | None = None) -> None:
        self.file = folder / "web.yml"
        self.file.write_text(text)
        self.guard = PolicyFile(str(self.file))
        super().__init__(limits, policies=self.guard)
        self.pages.hub.publish([record()])

    def secured(self, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        return (context or trusting()).wrap_socket(self.connect(), server_hostname="localhost")

    def ask(self, path: str = "/metrics", headers: dict[str, str] | None = None, context: ssl.SSLContext | None = None) -> Answer:
        to = ("127.0.0.1", self.server.port)
        plain = self.guard.last.tls is None
        connection = (
            http.client.HTTPConnection(*to, timeout=PATIENCE)
            if plain
            else http.client.HTTPSConnection(*to, timeout=PATIENCE, context=context or trusting())
        )
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())


@contextlib.contextmanager
def serving(folder: Path, text: str, limits: Limits | None = None) -> Iterator[Site]:
    """It looks at its files at every call, not once a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy_file, "_CHECK_SECONDS", 0.0)
        with contextlib.closing(Site(folder, text, limits)) as site:
            yield site


def trusting(own: certificates.Pair | None = None) -> ssl.SSLContext:
    """A client's context; with `own`, it shows that certificate."""
    context = ssl.create_default_context(cafile=str(certificates.server().cert))
    if own is not None:
        context.load_cert_chain(*own)
    return context


def tls_section(**more: str) -> str:
    keys = {"cert_file": str(certificates.server().cert), "key_file": str(certificates.server().key)} | more
    return "tls_server_config:\n" + "".join(f"  {key}: {value}\n" for key, value in keys.items())


def verifying(**more: str) -> str:
    return tls_section(client_auth_type="RequireAndVerifyClientCert", client_ca_file=str(certificates.made("authority").cert), **more)


def client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()
