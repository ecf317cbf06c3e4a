"""What the web configuration file names, and what the command line says of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter import cli
from exporter.config.problems import ConfigError
from exporter.web import webconfig
from exporter.web.policy import AccessPolicy
from exporter.web.policy_file import PolicyFile
from tests.unit import certificates
from tests.unit.webconfig_files import HASH, TLS, Guarded, certified, guarding, refusal

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def guarded(tmp_path: Path) -> Guarded:
    return guarding(tmp_path)


@pytest.fixture
def pair(tmp_path: Path) -> certificates.Pair:
    return certified(tmp_path)


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_bad_certificates(guarded: Guarded, pair: certificates.Pair) -> None:
    """Which of the two files is wrong, and why, has to be said at start."""
    good = {path: path.read_bytes() for path in pair}
    key_of_another = certificates.client().key.read_bytes()
    for path, content, message in (
        (pair.key, key_of_another, "key_file: does not belong to the certificate in cert_file"),
        (pair.key, b"", "key_file: contains no valid key: "),
        (pair.key, b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n", "key_file: is encrypted: store it without a password"),
        (pair.cert, b"", "cert_file: contains no valid certificate: "),
        (pair.cert, b"\xff\0", "cert_file: contains no valid certificate: "),
        (pair.cert, good[pair.cert][:200], "cert_file: contains no valid certificate: "),
        (pair.cert, b"#" * (1 << 20) + b"\n", f"cert_file: '{str(pair.cert)[:60]}"),
    ):
        path.write_bytes(content)
        assert refusal(guarded, TLS).startswith(f"tls_server_config.{message}")
        path.write_bytes(good[path])
    pair.key.unlink()
    assert refusal(guarded, TLS).endswith(" cannot be read: no such file or directory")
    pair.key.write_bytes(good[pair.key])
    (pair.key.parent / "ca").write_text("nothing")
    ca = f"{TLS}  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca"
    assert refusal(guarded, ca).startswith("tls_server_config.client_ca_file: contains no valid certificate: ")


def test_http2_is_warned_about_only_where_it_is_asked_for(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    """It is the toolkit's default, so a file that does not mention it is no reason to complain."""
    guarded("http_server_config: {headers: {}}")
    guarded("http_server_config: {http2: false}")
    assert not caplog.records
    made = guarded("http_server_config: {http2: true}")
    made.policy()
    assert [record.getMessage() for record in caplog.records] == ["HTTP/2 is not supported; HTTP/1.1 is used"]


def test_what_was_read_is_complained_about_once(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    """It is read again once privileges are dropped, to see that it still can be."""
    made = guarded("http_server_config: {http2: true}")
    made.reread()
    assert len(caplog.records) == 1
    Path(made._path).unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        made.reread()


@pytest.mark.parametrize(
    ("pair", "why"),
    [(certificates.expired, "certificate has expired"), (certificates.client, "unsuitable certificate purpose"), (certificates.server, "")],
)
def test_certificate_that_clients_refuse(
    guarded: Guarded, pair: Callable[[], certificates.Pair], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning: OpenSSL serves it, and a scraper that does not verify takes it, but all others would just see no target."""
    cert, key = pair()
    for limits in ("", ", min_version: TLS13, curve_preferences: [CurveP521]", ", max_version: TLS12"):
        caplog.clear()
        guarded(f"tls_server_config: {{cert_file: {cert}, key_file: {key}{limits}}}")
        assert [each.getMessage() for each in caplog.records] == ([f"clients will refuse the certificate: {why}"] if why else [])


def test_pipes_are_not_waited_for(guarded: Guarded, pair: certificates.Pair) -> None:
    """Opening one may take for ever, at start and again when somebody asks."""
    for name in ("cert.pem", "key.pem"):
        path = pair.key.parent / name
        path.rename(f"{path}.kept")
        os.mkfifo(path)
        assert refusal(guarded, TLS).endswith(" is not a regular file")
        Path(f"{path}.kept").replace(path)
    os.mkfifo(pair.key.parent / "pipe")
    with pytest.raises(ConfigError, match="pipe: not a regular file"):
        PolicyFile(str(pair.key.parent / "pipe"))


def test_shipped_example_is_good() -> None:
    """It is what people copy; all of it is commented out, since certificates and passwords are theirs."""
    path = REPOSITORY / "config" / "web.yml"
    assert PolicyFile(str(path)).last == AccessPolicy()
    text = "\n".join(line.removeprefix("# ") if line.startswith("# ") and (":" in line) else line for line in path.read_text().splitlines())
    assert set(webconfig.WebConfig.__dataclass_fields__) == {
        line[:-1] for line in text.splitlines() if line.endswith(":") and line[0].isalpha()
    }


# The command line


def test_bad_file_is_status_2_before_anything_is_started(tmp_path: Path) -> None:
    """A service manager must not see it come up and go."""
    file = tmp_path / "web.yml"
    file.write_text("rate_limt: {}")
    for arguments in (["--mode=scan", "--web.listen-address=127.0.0.1:0"], ["check-config"]):
        command = [sys.executable, "-m", "exporter", *arguments, f"--web.config.file={file}"]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"shortproc-exporter: error: {file}: rate_limt: unknown key (did you mean rate_limit?)\n"


def test_check_config_checks_what_the_file_names(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Either is what would be refused at start."""
    (in_folder / "a.yml").write_text("web: {config_file: web.yml}")
    assert cli.main(["check-config", "a.yml"]) == 2
    assert "web.yml: cannot be read" in capsys.readouterr().err
    (in_folder / "web.yml").write_text(f"basic_auth_users: {{alice: {HASH}}}")
    assert cli.main(["check-config", "a.yml"]) == 0
    assert cli.main(["check-config", "--web.config.file=web.yml"]) == 0
    assert capsys.readouterr().out == "a.yml: ok\nweb.yml: ok\n"
