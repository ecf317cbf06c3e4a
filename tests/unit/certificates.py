"""Certificates made with the command `openssl`, for tests of TLS."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

SANS = "subjectAltName=DNS:scraper,email:a@b.example,IP:10.0.0.1,IP:fe80::1,URI:spiffe://x/y\nextendedKeyUsage=clientAuth\n"


class Pair(NamedTuple):
    cert: Path
    key: Path


def run(*arguments: str) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("the command openssl makes the certificates, and is not here")
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


@functools.cache
def made(name: str, extensions: str = "", issuer: str = "", rsa: bool = False, days: int = 2) -> Pair:
    """A certificate for `name`, signed by the authority `issuer` or by itself; made once a session."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    pair = Pair(folder / "cert.pem", folder / "key.pem")
    key = ["rsa:2048"] if rsa else ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    request = ["req", "-newkey", *key, "-nodes", "-keyout", str(pair.key), "-subj", f"/CN={name}"]
    if not issuer:
        run(*request, "-x509", "-days", "2", "-out", str(pair.cert), *(["-addext", extensions] if extensions else []))
        return pair
    authority, csr, ext = made(issuer), folder / "csr.pem", folder / "ext"
    ext.write_text(extensions)
    run(*request, "-out", str(csr))
    signer = ["-CA", str(authority.cert), "-CAkey", str(authority.key), "-CAcreateserial", "-extfile", str(ext)]
    run("x509", "-req", "-days", str(days), "-in", str(csr), "-out", str(pair.cert), *signer)
    return pair


def server() -> Pair:
    return made("localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1")


def client() -> Pair:
    return made("client", SANS, issuer="authority")


def expired() -> Pair:
    return made("expired", "subjectAltName=DNS:localhost", issuer="authority", days=-1)


def stranger() -> Pair:
    return made("stranger", SANS, issuer="other-authority")
