"""The keys and values of the web configuration file: what is taken, and what is refused and how."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.config.problems import ConfigError, InvalidValue
from exporter.web import webconfig
from exporter.web.policy import AccessPolicy
from exporter.web.policy_file import PolicyFile
from exporter.web.webconfig import SUITES, TLS13_SUITES, WebConfig
from tests.unit import certificates
from tests.unit.webconfig_files import HASH, TLS, Guarded, certified, guarding, refusal


@pytest.fixture
def guarded(tmp_path: Path) -> Guarded:
    return guarding(tmp_path)


@pytest.fixture
def pair(tmp_path: Path) -> certificates.Pair:
    return certified(tmp_path)


@pytest.mark.parametrize("text", ["", "# nothing\n", "tls_server_config:\nhttp_server_config:\nbasic_auth_users:\nrate_limit:\n", "{}"])
def test_empty_file_asks_for_nothing(guarded: Guarded, text: str) -> None:
    """The toolkit takes an empty file too, and one with everything commented out is alike."""
    assert guarded(text).last == AccessPolicy()


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
        ("tls_server_config: {min_version: TLS12}", "tls_server_config.cert_file: missing: set it, or cert; "),
        ("tls_server_config: {cert_file: a}", "tls_server_config.key_file: missing: set it, or key"),
        ("tls_server_config: {cert_file: a, cert: b, key: c}", "tls_server_config.cert: set either cert or cert_file, not both"),
        (
            f"{TLS}  min_version: TLS14",
            "tls_server_config.min_version: 'TLS14' is not one of TLS10, TLS11, TLS12, TLS13 (did you mean TLS13?)",
        ),
        (f"{TLS}  min_version: TLS13\n  max_version: TLS12", "tls_server_config.max_version: TLS12 is older than min_version (TLS13)"),
        (
            f"{TLS}  client_auth_type: RequireAnyClientCert",
            "tls_server_config.client_auth_type: 'RequireAnyClientCert' would accept certificates without verifying them",
        ),
        (
            f"{TLS}  client_auth_type: RequireAndVerifyClientCert",
            "tls_server_config.client_ca_file: missing: without it, a certificate from any public authority would be accepted",
        ),
        (
            f"{TLS}  client_ca_file: a",
            "tls_server_config.client_ca_file: has no effect: set client_auth_type: RequireAndVerifyClientCert too",
        ),
        (
            f"{TLS}  client_allowed_sans: [a]",
            "tls_server_config.client_allowed_sans: has no effect: set client_auth_type: RequireAndVerifyClientCert too",
        ),
        (
            f"{TLS}  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]",
            "tls_server_config.cipher_suites[0]: 'TLS_RSA_WITH_RC4_128_SHA' is not the name of a cipher suite in Go's tls.CipherSuites()",
        ),
        (
            f"{TLS}  cipher_suites: [{{a: b}}, [1], null]",
            "tls_server_config.cipher_suites[0]: a mapping is not the name of a cipher suite",
        ),
        (f"{TLS}  client_auth_type: {{a: b}}", "tls_server_config.client_auth_type: a mapping is not one of NoClientCert, "),
        (f"{TLS}  curve_preferences: [{{a: b}}]", "tls_server_config.curve_preferences[0]: a mapping is not one of CurveP256, "),
        (f"{TLS}  client_allowed_sans: [{{a: b}}]", "tls_server_config.client_allowed_sans[0]: a mapping is not a name"),
        (
            f"{TLS}  cipher_suites: [TLS_AES_128_GCM_SHA256]",
            "tls_server_config.cipher_suites: lists no suite of TLS 1.2: to allow TLS 1.3 only, set min_version: TLS13",
        ),
        (
            f"{TLS}  curve_preferences: [CurveP256, CurveP384]",
            "tls_server_config.curve_preferences: lists more than one curve, and Python's ssl supports one",
        ),
        (
            "http_server_config: {headers: {Server: a}}",
            "http_server_config.headers.Server: unknown key (known keys here: Content-Security-Policy, ",
        ),
        (
            "http_server_config: {headers: {X-Frame-Options: DENY}}",
            "http_server_config.headers.X-Frame-Options: 'DENY' is not one of deny, sameorigin",
        ),
        (
            'http_server_config: {headers: {Content-Security-Policy: "a\\r\\nSet-Cookie: b"}}',
            "http_server_config.headers.Content-Security-Policy: 'a\\r\\nSet-Cookie: b' is not a header value in printable ASCII",
        ),
        ("http_server_config: {http2: 1}", "http_server_config.http2: 1 is not true or false"),
        ("basic_auth_users: {'a:b': x}", "basic_auth_users.a:b: a user name cannot contain a colon in basic authentication"),
        ("basic_auth_users: [a]", "basic_auth_users: a list is not a mapping of user names to bcrypt hashes"),
        ("basic_auth_users: {alice: secret}", "basic_auth_users.alice: not a bcrypt hash: make one with htpasswd -nBC 10 ''"),
        ("rate_limit: {interval: 1, burst: 1}", "rate_limit.interval: 1 is not a duration with its unit, such as 1s or 100ms"),
        ("rate_limit: {interval: -1s, burst: 1}", "rate_limit.interval: '-1s' is not a duration with its unit, such as 1s or 100ms"),
        ("rate_limit: {interval: 1s}", "rate_limit.burst: is 0, which would reject every request"),
        ("rate_limit: {interval: 1s, burst: -1}", "rate_limit.burst: -1 is not an integer from 0 to 1000000"),
    ],
)
def test_bad_value(guarded: Guarded, text: str, message: str) -> None:
    """What can't be honoured is refused, by its key and with the reason; nothing is left out in silence."""
    assert refusal(guarded, text).startswith(message)


@pytest.mark.parametrize("version", ["min_version: TLS10", "min_version: TLS11", "min_version: TLS10\n  max_version: TLS11"])
def test_old_tls(guarded: Guarded, pair: certificates.Pair, version: str) -> None:
    """OpenSSL would not speak it, whatever the file says."""
    assert "is not supported by this OpenSSL" in refusal(guarded, f"{TLS}  {version}")


@pytest.mark.parametrize(
    "seconds", [("0", 0.0), ('"0"', 0.0), ("1.5h", 5400.0), ("10ms", 0.01), ("1h2m3s", 3723.0), ("5us", 5e-6), (".nan", None)]
)
def test_durations(seconds: tuple[str, float | None]) -> None:
    """As Go writes them."""
    text, wanted = seconds
    content = yaml.safe_load(f"rate_limit: {{interval: {text}, burst: 1}}")
    if wanted is None:
        with pytest.raises(InvalidValue):
            webconfig.read(content)
    else:
        assert webconfig.read(content).rate_limit.interval == pytest.approx(wanted)


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
    certified(folder)
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
        PolicyFile(str(path))
    except ConfigError as error:
        refused = str(error)
    assert not refused or refused.isprintable()


def test_weakness_is_of_protection_alone() -> None:
    """Other changes are free."""
    assert webconfig.weakness(WebConfig(), WebConfig()) is None
    limited = webconfig.read({"rate_limit": {"interval": "1s", "burst": 1}})
    assert webconfig.weakness(limited, WebConfig()) is None
