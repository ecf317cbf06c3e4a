"""The web configuration file: what is taken, what is refused and how, and what a change of it does."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import certificates
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter import cli
from exporter.checks import Wrong
from exporter.config import ConfigError
from exporter.web import guard, webconfig
from exporter.web.guard import Guard
from exporter.web.terms import Terms
from exporter.web.webconfig import SUITES, TLS13_SUITES, WebConfig

pytest.importorskip("bcrypt", reason="basic authentication needs it")

REPOSITORY = Path(__file__).resolve().parents[2]
HASH = "$2y$04$NQ5WhLk0kAn3w1Q5dZ4a4.mXb1C9GdV2fJkq0PVxO5kE8pM3yq5sa"
OTHER_HASH = HASH[:-1] + "b"
TLS = "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n"
Guarded = Callable[[str], Guard]


@pytest.fixture
def guarded(tmp_path: Path) -> Guarded:
    def make(text: str) -> Guard:
        path = tmp_path / "web.yml"
        path.write_text(text)
        return Guard(str(path))

    return make


@pytest.fixture
def pair(tmp_path: Path) -> certificates.Pair:
    """A certificate and its key beside the file, under the names in `TLS`."""
    made = certificates.server()
    for name, source in zip(("cert.pem", "key.pem"), made, strict=True):
        (tmp_path / name).write_bytes(source.read_bytes())
    return certificates.Pair(tmp_path / "cert.pem", tmp_path / "key.pem")


@pytest.fixture
def always_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the files at every call, not once a second."""
    monkeypatch.setattr(guard, "_CHECK_SECONDS", 0.0)


def refusal(guarded: Guarded, text: str) -> str:
    """The message without the path of the file."""
    with pytest.raises(ConfigError) as caught:
        guarded(text)
    message = str(caught.value)
    assert message.isprintable()  # so it is one line
    return message.partition("web.yml: ")[2]


@pytest.mark.parametrize("text", ["", "# nothing\n", "tls_server_config:\nhttp_server_config:\nbasic_auth_users:\nrate_limit:\n", "{}"])
def test_empty_file_asks_for_nothing(guarded: Guarded, text: str) -> None:
    """The toolkit takes an empty file too, and one with everything commented out is alike."""
    assert guarded(text).last == Terms()


def test_every_key_of_the_toolkit_is_taken(guarded: Guarded, pair: certificates.Pair, tmp_path: Path) -> None:
    """A file that serves other exporters has to serve this one."""
    (tmp_path / "ca.pem").write_bytes(pair.cert.read_bytes())
    suites = ", ".join((*SUITES, *TLS13_SUITES))
    made = guarded(
        f"{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n  client_allowed_sans: [scraper]\n"
        f"  min_version: TLS12\n  max_version: TLS13\n  cipher_suites: [{suites}]\n  prefer_server_cipher_suites: false\n"
        "  curve_preferences: [CurveP256]\n"
        "http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n    X-Content-Type-Options: nosniff\n"
        "    Content-Security-Policy: default-src 'self'\n    X-XSS-Protection: '0'\n    Strict-Transport-Security: max-age=1\n"
        f"basic_auth_users:\n  alice: {HASH}\nrate_limit:\n  interval: 1m30.5s\n  burst: 20\n"
    )
    assert len(made.last.headers) == 5
    assert made.last.tls is not None
    assert made.last.users is not None
    assert made._settings.rate_limit.interval == 90.5


def test_inline_certificates(guarded: Guarded, pair: certificates.Pair) -> None:
    """Some secrets never are files."""
    cert, key = (path.read_text() for path in pair)
    text = yaml.safe_dump({"tls_server_config": {"cert": cert, "key": key}})
    for path in pair:
        path.unlink()
    assert guarded(text).last.tls is not None


def test_blank_headers_are_left_alone(guarded: Guarded) -> None:
    """The toolkit's documentation says: unset if blank."""
    assert guarded("http_server_config: {headers: {X-Frame-Options: '', Content-Security-Policy: }}").last.headers == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("basic_auth_user: {}", "basic_auth_user: unknown key (did you mean basic_auth_users?)"),
        ("- 1", "top level: a list is not a mapping of keys to values"),
        ("tls_server_config: {certfile: a}", "tls_server_config.certfile: unknown key (did you mean cert_file?)"),
        ("tls_server_config: {min_version: TLS12}", "tls_server_config.cert_file: is missing, and so is cert"),
        ("tls_server_config: {cert_file: a}", "tls_server_config.key_file: is missing, and so is key"),
        ("tls_server_config: {cert_file: a, cert: b, key: c}", "tls_server_config.cert: contradicts cert_file"),
        (
            f"{TLS}  min_version: TLS14",
            "tls_server_config.min_version: 'TLS14' is not one of TLS10, TLS11, TLS12, TLS13 (did you mean TLS13?)",
        ),
        (f"{TLS}  min_version: TLS13\n  max_version: TLS12", "tls_server_config.max_version: TLS12 is below min_version"),
        (
            f"{TLS}  client_auth_type: RequireAnyClientCert",
            "tls_server_config.client_auth_type: 'RequireAnyClientCert' would take certificates that nobody verified",
        ),
        (
            f"{TLS}  client_auth_type: RequireAndVerifyClientCert",
            "tls_server_config.client_ca_file: is missing: without it, whoever has a certificate from any public authority would be let in",
        ),
        (
            f"{TLS}  client_ca_file: a",
            "tls_server_config.client_ca_file: has no effect without client_auth_type: RequireAndVerifyClientCert",
        ),
        (
            f"{TLS}  client_allowed_sans: [a]",
            "tls_server_config.client_allowed_sans: has no effect without client_auth_type: RequireAndVerifyClientCert",
        ),
        (
            f"{TLS}  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]",
            "tls_server_config.cipher_suites[0]: 'TLS_RSA_WITH_RC4_128_SHA' is not the name of a suite that Go's tls.CipherSuites() has",
        ),
        (
            f"{TLS}  cipher_suites: [TLS_AES_128_GCM_SHA256]",
            "tls_server_config.cipher_suites: names no suite of TLS 1.2; for TLS 1.3 alone, set min_version: TLS13",
        ),
        (
            f"{TLS}  curve_preferences: [CurveP256, CurveP384]",
            "tls_server_config.curve_preferences: names more than one curve, and Python's ssl takes one alone",
        ),
        (
            "http_server_config: {headers: {Server: a}}",
            "http_server_config.headers.Server: unknown key (known here: Content-Security-Policy, ",
        ),
        (
            "http_server_config: {headers: {X-Frame-Options: DENY}}",
            "http_server_config.headers.X-Frame-Options: 'DENY' is not one of deny, sameorigin",
        ),
        (
            'http_server_config: {headers: {Content-Security-Policy: "a\\r\\nSet-Cookie: b"}}',
            "http_server_config.headers.Content-Security-Policy: 'a\\r\\nSet-Cookie: b' is not a value of a header, in printable ASCII",
        ),
        ("http_server_config: {http2: 1}", "http_server_config.http2: 1 is not true or false"),
        ("basic_auth_users: {'a:b': x}", "basic_auth_users.a:b: has a colon, which ends a name in basic authentication"),
        ("basic_auth_users: [a]", "basic_auth_users: a list is not a mapping of names to bcrypt hashes"),
        ("basic_auth_users: {alice: secret}", "basic_auth_users.alice: is not a bcrypt hash, such as htpasswd -nBC 10 '' makes"),
        ("rate_limit: {interval: 1, burst: 1}", "rate_limit.interval: 1 is not a duration with its unit, such as 1s or 100ms"),
        ("rate_limit: {interval: -1s, burst: 1}", "rate_limit.interval: '-1s' is not a duration with its unit, such as 1s or 100ms"),
        ("rate_limit: {interval: 1s}", "rate_limit.burst: is 0, which would refuse every request"),
        ("rate_limit: {interval: 1s, burst: -1}", "rate_limit.burst: -1 is not an integer from 0 to 1000000"),
    ],
)
def test_bad_value(guarded: Guarded, text: str, message: str) -> None:
    """What can't be honoured is refused, by its key and with the reason; nothing is left out in silence."""
    assert refusal(guarded, text).startswith(message)


@pytest.mark.parametrize("version", ["min_version: TLS10", "min_version: TLS11", "min_version: TLS10\n  max_version: TLS11"])
def test_old_tls(guarded: Guarded, pair: certificates.Pair, version: str) -> None:
    """OpenSSL would not speak it, whatever the file says."""
    assert "is not spoken by the OpenSSL here" in refusal(guarded, f"{TLS}  {version}")


@pytest.mark.parametrize(
    "seconds", [("0", 0.0), ('"0"', 0.0), ("1.5h", 5400.0), ("10ms", 0.01), ("1h2m3s", 3723.0), ("5us", 5e-6), (".nan", None)]
)
def test_durations(seconds: tuple[str, float | None]) -> None:
    """As Go writes them."""
    text, wanted = seconds
    content = yaml.safe_load(f"rate_limit: {{interval: {text}, burst: 1}}")
    if wanted is None:
        with pytest.raises(Wrong):
            webconfig.read(content)
    else:
        assert webconfig.read(content).rate_limit.interval == pytest.approx(wanted)


def test_bad_certificates(guarded: Guarded, pair: certificates.Pair) -> None:
    """Which of the two files is wrong, and why, has to be said at start."""
    good = {path: path.read_bytes() for path in pair}
    key_of_another = certificates.client().key.read_bytes()
    for path, content, message in (
        (pair.key, key_of_another, "key_file: is not the key of the certificate in cert_file"),
        (pair.key, b"", "key_file: holds no key that can be used: "),
        (pair.key, b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n", "key_file: is encrypted, and nobody is there to ask for its password"),
        (pair.cert, b"", "cert_file: holds no certificate that can be used: "),
        (pair.cert, b"\xff\0", "cert_file: holds no certificate that can be used: "),
        (pair.cert, good[pair.cert][:200], "cert_file: holds no certificate that can be used: "),
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
    assert refusal(guarded, ca).startswith("tls_server_config.client_ca_file: holds no certificate that can be used: ")


def test_secrets_are_not_shown(guarded: Guarded) -> None:
    """A password in place of its hash, or a key in the wrong place, must not end in a log."""
    for text in ("basic_auth_users: {alice: hunter2}", "basic_auth_users: {alice: [hunter2]}", f"{TLS}  key: [hunter2]"):
        assert "hunter2" not in refusal(guarded, text)


SCALAR = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.sampled_from([HASH, "cert.pem", "1s", "TLS12", "CurveP256", "VerifyClientCertIfGiven", "web.yml", "/dev/null", "a\0b"]),
)
KEYS = [f"{section}.{key}" for section, of in webconfig.WebConfig.__dataclass_fields__.items() for key in ("", "a")] + [
    *(f"tls_server_config.{key}" for key in webconfig.TlsServer.__dataclass_fields__),
    *(f"http_server_config.headers.{name}" for name in webconfig.HEADERS),
    "http_server_config.http2",
    "rate_limit.interval",
    "rate_limit.burst",
]


@given(
    content=st.one_of(
        st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3)),
        st.lists(st.tuples(st.sampled_from(KEYS), SCALAR | st.lists(SCALAR, max_size=2)), max_size=6),
    )
)
@settings(max_examples=400, deadline=None)
def test_any_content_is_taken_or_refused(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    """No value may get past the checks as an exception that nobody catches."""
    folder = tmp_path_factory.getbasetemp() / f"web-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    for name, source in zip(("cert.pem", "key.pem"), certificates.server(), strict=True):
        (folder / name).write_bytes(source.read_bytes())
    if isinstance(content, list) and all(isinstance(each, tuple) for each in content):
        nested: dict[str, object] = {"tls_server_config": {"cert_file": "cert.pem", "key_file": "key.pem"}} if len(content) % 2 else {}
        for key, value in content:
            *sections, last = key.split(".")
            where = nested
            for section in sections:
                if not isinstance(where.get(section), dict):
                    where[section] = {}
                where = where[section]  # type: ignore[assignment]
            where[last] = value
        content = nested
    path = folder / "web.yml"
    path.write_text(yaml.safe_dump(content))
    refused = ""
    try:
        Guard(str(path))
    except ConfigError as error:
        refused = str(error)
    assert not refused or refused.isprintable()


def test_http2_is_warned_about_only_where_it_is_asked_for(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    """It is the toolkit's default, so a file that does not mention it is no reason to complain."""
    guarded("http_server_config: {headers: {}}")
    guarded("http_server_config: {http2: false}")
    assert not caplog.records
    made = guarded("http_server_config: {http2: true}")
    made.terms()
    assert [record.getMessage() for record in caplog.records] == ["http2 is not spoken here; HTTP/1.1 is"]


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
    with pytest.raises(ConfigError, match="pipe: is not a regular file"):
        Guard(str(pair.key.parent / "pipe"))


def test_shipped_example_is_good() -> None:
    """It is what people copy; all of it is commented out, since certificates and passwords are theirs."""
    path = REPOSITORY / "config" / "web.yml"
    assert Guard(str(path)).last == Terms()
    text = "\n".join(line.removeprefix("# ") if line.startswith("# ") and (":" in line) else line for line in path.read_text().splitlines())
    assert set(webconfig.WebConfig.__dataclass_fields__) == {
        line[:-1] for line in text.splitlines() if line.endswith(":") and line[0].isalpha()
    }


# Changes while running


@pytest.fixture
def running(guarded: Guarded, pair: certificates.Pair, always_looks: None) -> Guard:
    return guarded(f"{TLS}basic_auth_users: {{alice: {HASH}}}\n")


def write(running: Guard, text: str) -> None:
    Path(running._path).write_text(text)


def test_change_of_the_file_is_taken(running: Guard, caplog: pytest.LogCaptureFixture) -> None:
    """Without a restart, and what did not change goes on: who is known stays known."""
    caplog.set_level(logging.INFO)
    before = running.terms()
    assert running.terms() is before
    write(running, f"{TLS}basic_auth_users: {{alice: {HASH}}}\nhttp_server_config: {{headers: {{X-Frame-Options: deny}}}}\n")
    after = running.terms()
    assert after.headers == {"X-Frame-Options": "deny"}
    assert (after.users, after.tls) == (before.users, before.tls)
    write(running, f"{TLS}basic_auth_users: {{alice: {OTHER_HASH}}}\n")
    assert running.terms().users is not before.users
    assert [record.getMessage() for record in caplog.records] == ["web configuration read again"] * 2


def test_certificates_that_rotate(running: Guard, pair: certificates.Pair) -> None:
    """By a new file under the old name, and by a link that points elsewhere, as in Kubernetes."""
    before = running.terms()
    fresh = certificates.made("fresh", rsa=True)
    pair.cert.write_bytes(fresh.cert.read_bytes())
    assert running.terms() is before  # half way, certificate and key do not fit
    pair.key.write_bytes(fresh.key.read_bytes())
    rotated = running.terms()
    assert rotated.tls not in (None, before.tls)
    assert rotated.users is before.users
    for path, source in zip(pair, certificates.server(), strict=True):
        link = path.with_suffix(".new")
        link.symlink_to(source)
        link.replace(path)
    assert running.terms().tls not in (before.tls, rotated.tls)


def test_bad_change_is_refused_whole_and_said_once(running: Guard, caplog: pytest.LogCaptureFixture) -> None:
    """The one before stays, the log is not flooded, and the next good one is taken."""
    before = running.terms()
    write(running, f"{TLS}  min_version: TLS99\nbasic_auth_users: {{alice: {OTHER_HASH}}}\n")
    for _ in range(5):
        assert running.terms() is before
    (record,) = caplog.records
    assert record.getMessage() == "web configuration refused; the one before stays"
    assert "tls_server_config.min_version: 'TLS99'" in str(record.fields["reason"])  # type: ignore[attr-defined]
    Path(running._path).unlink()
    assert running.terms() is before
    assert len(caplog.records) == 2
    write(running, f"{TLS}basic_auth_users: {{alice: {OTHER_HASH}}}\n")
    assert running.terms() is not before


PROTECTED = (
    f"{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: cert.pem\n  client_allowed_sans: [a]\n"
    f"basic_auth_users:\n  alice: {HASH}\n"
)


@pytest.mark.parametrize("left", [*range(0, len(PROTECTED), 7)])
def test_half_a_file_opens_no_door(guarded: Guarded, pair: certificates.Pair, always_looks: None, left: int) -> None:
    """An editor that writes in place leaves half a file for a moment, and in many halves there is no protection."""
    running = guarded(PROTECTED)
    before = running.terms()
    write(running, PROTECTED[:left])
    assert running.terms() is before


def test_protection_is_not_taken_away_while_running(running: Guard, caplog: pytest.LogCaptureFixture) -> None:
    """That takes a restart, and the log says so."""
    write(running, "rate_limit: {interval: 1s, burst: 5}\n")
    running.terms()
    assert "tls_server_config: is taken away, which takes a restart" in str(caplog.records[-1].fields["reason"])  # type: ignore[attr-defined]


def test_unchanged_files_are_not_read_again(running: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look costs a few stat(2); parsing YAML and keys at each scrape would cost milliseconds."""
    reads: list[int] = []
    real = running.reread

    def read() -> None:
        reads.append(1)
        real()

    monkeypatch.setattr(running, "reread", read)
    for _ in range(3):
        running.terms()
    assert len(reads) == 3  # the files are too new to tell by their times
    monkeypatch.setattr(guard, "_SETTLED_NS", -(10**12))
    for _ in range(5):
        running.terms()
    assert len(reads) == 4
    os.utime(running._path)
    before = running.last
    assert running.terms() is before
    assert len(reads) == 5


def test_one_thread_looks_and_the_others_do_not_wait(running: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file on a dead network drive must not delay those who are served already."""
    inside, gate = threading.Event(), threading.Event()

    def hang() -> None:
        inside.set()
        gate.wait(20)

    monkeypatch.setattr(running, "_look", hang)
    stuck = threading.Thread(target=running.terms)
    stuck.start()
    assert inside.wait(20)
    assert running.terms() is running.last
    gate.set()
    stuck.join(20)


def test_looks_once_a_second(running: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask."""
    looks: list[float] = []
    monkeypatch.setattr(guard, "_CHECK_SECONDS", 3600.0)
    monkeypatch.setattr(running, "_look", lambda: looks.append(time.monotonic()))
    for _ in range(100):
        running.terms()
    assert len(looks) == 1


# The command line


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


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


def test_weakness_is_of_protection_alone() -> None:
    """Other changes are free."""
    assert webconfig.weakness(WebConfig(), WebConfig()) is None
    limited = webconfig.read({"rate_limit": {"interval": "1s", "burst": 1}})
    assert webconfig.weakness(limited, WebConfig()) is None
