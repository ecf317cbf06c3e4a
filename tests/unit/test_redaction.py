"""Secrets in arguments are replaced in all their usual forms, and no text makes that slow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.model.arguments import Arguments
from exporter.records import arguments, redaction
from exporter.records.redaction import REDACTED, Redaction

REDACT = Redaction()
secrets = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=12).filter(lambda text: REDACTED not in text)
plain = st.text("abcdefghijkl", min_size=6)
"""Without the name of a secret, and unlike one."""

FORMS = (
    "--password={}",
    "--db-password={}",
    "--password|{}",
    "--token|{}",
    "--api_key|{}",
    "-key={}",
    "PASSWORD={}",
    "MYSQL_PWD={}",
    "AWS_SECRET_ACCESS_KEY={}",
    "-DaccessToken={}",
    "-H|Authorization: Bearer {}",
    "--header=X-Api-Key: {}",
    "-H|Cookie: session={}",
    'data={{"password":"{}"}}',
    "sh|-c|PASSWORD={} run",
    "-passin|pass:{}",
    "aws|configure|set|aws_secret_access_key|{}",
    "--token|--password|{}",
)
WITHOUT_SPACES = (
    "mysql|-p{}",
    "sudo|-u|x|/usr/bin/mysqldump|-p{}",
    "sshpass|-p|{}",
    "curl|-u|user:{}",
    "redis-cli|-a|{}",
    "ldapsearch|-w|{}",
    "sh|-c|mysql -p{} x",
    "https://user:{}@host/path",
    "postgresql://user:{}@host:5432/db?x=y",
    "clone|https://{}@github.com/x",
)


def redacted(redact: Redaction, *words: str, cut: bool = False) -> list[str]:
    raw = Arguments(b"\0".join(word.encode("utf-8", "surrogateescape") for word in words), cut)
    result = redact(raw)
    assert result.cut is cut
    return [word.decode("utf-8", "surrogateescape") for word in result.words]


@pytest.mark.parametrize("form", FORMS)
@given(secret=secrets)
def test_whatever_the_secret_is_it_is_gone(form: str, secret: str) -> None:
    """Spaces, quotes and letters of any script are part of it."""
    words = redacted(REDACT, "x", *form.format(secret).split("|")) if "|" not in secret else []
    assert not any(secret in word for word in words)


@pytest.mark.parametrize("form", WITHOUT_SPACES)
@given(secret=st.text("abcXYZ019!$%*+,.:<>^_~-", min_size=8))
def test_what_ends_at_a_space_is_gone(form: str, secret: str) -> None:
    """Of these forms, only a part of the argument is secret."""
    assert not any(secret in word for word in redacted(REDACT, "x", *form.format(secret).split("|")))


@pytest.mark.parametrize(
    "secret",
    [
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "github_pat_11AAAA",
        "glpat-abcdefghijklmnopqrst",
        "xoxb-1-2-abc",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
        "sk_live_abc123",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_secrets_that_tell_what_they_are(secret: str) -> None:
    """Wherever they are."""
    assert redacted(REDACT, "x", f"a={secret}", secret) == ["x", f"a={REDACTED}", REDACTED]


def test_the_rest_stays() -> None:
    """A line without its secret still tells what ran."""
    assert redacted(REDACT, "mysql", "-h", "db", "-psecret") == ["mysql", "-h", "db", f"-p{REDACTED}"]
    assert redacted(REDACT, "curl", "-s", "https://me:pw@host/path?q=a@b") == ["curl", "-s", f"https://{REDACTED}@host/path?q=a@b"]
    assert redacted(REDACT, "deploy", "--token", "abc", "--to=prod") == ["deploy", "--token", REDACTED, "--to=prod"]
    for harmless in (
        ("ls", "-la", "/etc/passwd"),
        ("git", "clone", "ssh://host:2222/path", "https://r.org/@scope/pkg"),
        ("task-with-a-long-kebab-name", "--keyring=x", "bypass=1", "--author=me"),
        ("ssh", "-p", "22", "user@host"),
    ):
        assert redacted(REDACT, *harmless) == list(harmless)


def test_a_secret_that_is_cut() -> None:
    """What tells that it is one may be in the part that is missing."""
    assert redacted(REDACT, "x", "https://user:secre", cut=True) == ["x", f"https://{REDACTED}"]
    assert redacted(REDACT, "x", "https://user:123", cut=True) == ["x", f"https://{REDACTED}"]
    assert redacted(REDACT, "x", "--password", "secre", cut=True) == ["x", "--password", REDACTED]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--pin=1", "--Pin", "2"), (f"--pin={REDACTED}", "--Pin", REDACTED)),
        (("CARD_PIN=1", "card-pin: 3"), (f"CARD_PIN={REDACTED}", f"card-pin:{REDACTED}")),
        (("acme-123", "a=acme-123", "see acme-1 2"), (REDACTED, f"a={REDACTED}", f"see {REDACTED} 2")),
        (("--opinion=1", "pink"), ("--opinion=1", "pink")),
    ],
)
def test_globs_of_the_configuration(words: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """For names, whose values are replaced, and for whole words."""
    assert redacted(Redaction(["*pin", "ACME-*"]), "x", *words) == ["x", *expected]


@given(st.lists(plain, min_size=1))
def test_what_looks_like_nothing_is_kept(words: list[str]) -> None:
    """Records are for reading."""
    assert redacted(REDACT, *words) == words


@given(st.binary(max_size=512), st.booleans())
def test_any_bytes(text: bytes, cut: bool) -> None:
    """Nothing raises, no argument is lost or added, and what was redacted stays as it is."""
    given_ = Arguments(text, cut)
    once = Redaction(["a*"])(given_)
    assert len(once.words) == len(given_.words)
    assert once.cut is cut


def patterns(module: ModuleType) -> dict[str, re.Pattern[Any]]:
    return {f"{module.__name__}{name}": value for name, value in vars(module).items() if isinstance(value, re.Pattern)}


PATTERNS = patterns(redaction) | patterns(arguments)


@pytest.mark.parametrize("name", PATTERNS)
def test_no_text_makes_a_pattern_slow(name: str) -> None:
    """Time is bounded by construction: a repetition in a repetition takes exponential time, and each one without a limit a power more."""
    tree = re._parser.parse(PATTERNS[name].pattern)  # type: ignore[attr-defined]
    assert all(count <= 1 for count in _unlimited(tree))


def _unlimited(tree: Any, *, repeated: bool = False) -> Iterator[int]:
    """Yield the number of repetitions without a limit on each way through a pattern."""
    ways = [0]
    for operation, argument in tree:
        more = [0]
        match str(operation):
            case "MAX_REPEAT" | "MIN_REPEAT":
                _, most, inner = argument
                assert most == 1 or not repeated, "a repetition in a repetition"
                limited = most <= 100
                more = [count + (not limited) for count in _unlimited(inner, repeated=most > 1)]
            case "BRANCH":
                more = [count for branch in argument[1] for count in _unlimited(branch, repeated=repeated)]
            case "SUBPATTERN":
                more = list(_unlimited(argument[-1], repeated=repeated))
            case "ASSERT" | "ASSERT_NOT":
                more = list(_unlimited(argument[1], repeated=repeated))
        ways = sorted({mine + others for mine in ways for others in more})
    yield from ways
