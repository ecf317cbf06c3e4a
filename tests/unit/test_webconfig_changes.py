"""What a change of the web configuration file does while the exporter runs."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

import pytest

from exporter.web import policy_file
from exporter.web.policy_file import PolicyFile
from tests.unit import certificates
from tests.unit.webconfig_files import HASH, TLS, certified, guarding

OTHER_HASH = HASH[:-1] + "b"


@pytest.fixture
def pair(tmp_path: Path) -> certificates.Pair:
    return certified(tmp_path)


@pytest.fixture
def always_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the files at every call, not once a second."""
    monkeypatch.setattr(policy_file, "_CHECK_SECONDS", 0.0)


@pytest.fixture
def running(tmp_path: Path, pair: certificates.Pair, always_looks: None) -> PolicyFile:
    return guarding(tmp_path)(f"{TLS}basic_auth_users: {{alice: {HASH}}}\n")


def write(running: PolicyFile, text: str) -> None:
    Path(running._path).write_text(text)


def test_change_of_the_file_is_taken(running: PolicyFile, caplog: pytest.LogCaptureFixture) -> None:
    """Without a restart, and what did not change goes on: who is known stays known."""
    caplog.set_level(logging.INFO)
    before = running.policy()
    assert running.policy() is before
    write(running, f"{TLS}basic_auth_users: {{alice: {HASH}}}\nhttp_server_config: {{headers: {{X-Frame-Options: deny}}}}\n")
    after = running.policy()
    assert after.headers == {"X-Frame-Options": "deny"}
    assert (after.users, after.tls) == (before.users, before.tls)
    write(running, f"{TLS}basic_auth_users: {{alice: {OTHER_HASH}}}\n")
    assert running.policy().users is not before.users
    assert [record.getMessage() for record in caplog.records] == ["web configuration reloaded"] * 2


def test_certificates_that_rotate(running: PolicyFile, pair: certificates.Pair) -> None:
    """By a new file under the old name, and by a link that points elsewhere, as in Kubernetes."""
    before = running.policy()
    fresh = certificates.made("fresh", rsa=True)
    pair.cert.write_bytes(fresh.cert.read_bytes())
    assert running.policy() is before  # half way, certificate and key do not fit
    pair.key.write_bytes(fresh.key.read_bytes())
    rotated = running.policy()
    assert rotated.tls not in (None, before.tls)
    assert rotated.users is before.users
    for path, source in zip(pair, certificates.server(), strict=True):
        link = path.with_suffix(".new")
        link.symlink_to(source)
        link.replace(path)
    assert running.policy().tls not in (before.tls, rotated.tls)


def test_bad_change_is_refused_whole_and_said_once(running: PolicyFile, caplog: pytest.LogCaptureFixture) -> None:
    """The one before stays, the log is not flooded, and the next good one is taken."""
    before = running.policy()
    write(running, f"{TLS}  min_version: TLS99\nbasic_auth_users: {{alice: {OTHER_HASH}}}\n")
    for _ in range(5):
        assert running.policy() is before
    (record,) = caplog.records
    assert record.getMessage() == "web configuration rejected; keeping the previous one"
    assert "tls_server_config.min_version: 'TLS99'" in str(record.fields["reason"])  # type: ignore[attr-defined]
    Path(running._path).unlink()
    assert running.policy() is before
    assert len(caplog.records) == 2
    write(running, f"{TLS}basic_auth_users: {{alice: {OTHER_HASH}}}\n")
    assert running.policy() is not before


PROTECTED = (
    f"{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: cert.pem\n  client_allowed_sans: [a]\n"
    f"basic_auth_users:\n  alice: {HASH}\n"
)


@pytest.mark.parametrize("left", [*range(0, len(PROTECTED), 7)])
def test_half_a_file_opens_no_door(tmp_path: Path, pair: certificates.Pair, always_looks: None, left: int) -> None:
    """An editor that writes in place leaves half a file for a moment, and in many halves there is no protection."""
    running = guarding(tmp_path)(PROTECTED)
    before = running.policy()
    write(running, PROTECTED[:left])
    assert running.policy() is before


def test_protection_is_not_taken_away_while_running(running: PolicyFile, caplog: pytest.LogCaptureFixture) -> None:
    """That takes a restart, and the log says so."""
    write(running, "rate_limit: {interval: 1s, burst: 5}\n")
    running.policy()
    assert "tls_server_config: protection cannot be removed while running: restart the exporter" in str(caplog.records[-1].fields["reason"])  # type: ignore[attr-defined]


def test_unchanged_files_are_not_read_again(running: PolicyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look costs a few stat(2); parsing YAML and keys at each scrape would cost milliseconds."""
    reads: list[int] = []
    real = running.reread

    def read() -> None:
        reads.append(1)
        real()

    monkeypatch.setattr(running, "reread", read)
    for _ in range(3):
        running.policy()
    assert len(reads) == 3  # the files are too new to tell by their times
    monkeypatch.setattr(policy_file, "_SETTLED_NS", -(10**12))
    for _ in range(5):
        running.policy()
    assert len(reads) == 4
    os.utime(running._path)
    before = running.last
    assert running.policy() is before
    assert len(reads) == 5


def test_one_thread_looks_and_the_others_do_not_wait(running: PolicyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file on a dead network drive must not delay those who are served already."""
    inside, policies = threading.Event(), threading.Event()

    def hang() -> None:
        inside.set()
        policies.wait(20)

    monkeypatch.setattr(running, "_reload_if_changed", hang)
    stuck = threading.Thread(target=running.policy)
    stuck.start()
    assert inside.wait(20)
    assert running.policy() is running.last
    policies.set()
    stuck.join(20)


def test_looks_once_a_second(running: PolicyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask."""
    looks: list[float] = []
    monkeypatch.setattr(policy_file, "_CHECK_SECONDS", 3600.0)
    monkeypatch.setattr(running, "_reload_if_changed", lambda: looks.append(time.monotonic()))
    for _ in range(100):
        running.policy()
    assert len(looks) == 1
