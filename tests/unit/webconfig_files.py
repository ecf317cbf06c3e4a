"""Web configuration files, the certificates beside them, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.config.problems import ConfigError
from exporter.web.policy_file import PolicyFile
from tests.unit import certificates

pytest.importorskip("bcrypt", reason="basic authentication needs it")

HASH = "$2y$04$NQ5WhLk0kAn3w1Q5dZ4a4.mXb1C9GdV2fJkq0PVxO5kE8pM3yq5sa"
TLS = "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n"
Guarded = Callable[[str], PolicyFile]


def guarding(folder: Path) -> Guarded:
    """To write a file there and have it read."""
    path = folder / "web.yml"

    def make(text: str) -> PolicyFile:
        path.write_text(text)
        return PolicyFile(str(path))

    return make


def certified(folder: Path) -> certificates.Pair:
    """A certificate and its key beside the file, under the names in `TLS`."""
    pair = certificates.Pair(folder / "cert.pem", folder / "key.pem")
    for path, source in zip(pair, certificates.server(), strict=True):
        path.write_bytes(source.read_bytes())
    return pair


def refusal(guarded: Guarded, text: str) -> str:
    """The message without the path of the file."""
    with pytest.raises(ConfigError) as caught:
        guarded(text)
    message = str(caught.value)
    assert message.isprintable()  # so it is one line
    return message.partition("web.yml: ")[2]
