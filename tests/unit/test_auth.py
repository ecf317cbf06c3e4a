"""Passwords, the limit of requests, and what a stranger can't do with them."""

from __future__ import annotations

import base64
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.web import auth
from exporter.web.auth import Users, refusal
from exporter.web.limiter import Limiter
from exporter.web.messages import Request
from exporter.web.policy import AccessPolicy, Open, Refused

bcrypt = pytest.importorskip("bcrypt", reason="basic authentication needs it")

PATIENCE = 20.0


def hashed(password: bytes, cost: int = 4) -> str:
    return str(bcrypt.hashpw(password, bcrypt.gensalt(cost)).decode())


@pytest.fixture
def users() -> Users:
    return Users({"alice": hashed(b"wonder"), "b\u00f6b": hashed(b"\xff\0" + b"x" * 70)})


@pytest.fixture
def checks(users: Users, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The hashes that bcrypt was asked for."""
    asked: list[bytes] = []
    real = users._checkpw

    def checkpw(password: bytes, of: bytes) -> bool:
        asked.append(of)
        return real(password, of)

    monkeypatch.setattr(users, "_checkpw", checkpw)
    return asked


def test_who_is_let_in(users: Users) -> None:
    """The right password of that very name, each time alike."""
    for _ in range(2):
        assert users.verify(b"alice", b"wonder", "peer") is True
        assert users.verify("b\u00f6b".encode(), b"\xff\0" + b"x" * 70, "peer") is True
        for name, password in ((b"alice", b""), (b"alice", b"wonder\0"), (b"bob", b"wonder"), (b"", b""), (b"alicew", b"onder")):
            assert users.verify(name, password, "peer") is False


def test_longer_passwords_count_as_in_the_toolkit(users: Users) -> None:
    """A bcrypt has 72 bytes, and the library raises where there are more."""
    assert users.verify("b\u00f6b".encode(), b"\xff\0" + b"x" * 90, "peer") is True
    assert users.verify(b"alice", b"x" * 10_000, "peer") is False


def test_each_answer_costs_one_bcrypt(users: Users, checks: list[bytes]) -> None:
    """A scrape every second must not cost one every second, nor must a mistyped password."""
    for _ in range(3):
        for password in (b"wonder", b"wrong"):
            users.verify(b"alice", password, "peer")
    assert len(checks) == 2


def test_unknown_names_cost_what_known_ones_do(users: Users, checks: list[bytes]) -> None:
    """Time must not tell which names there are: one bcrypt, with a cost that is in use, and always the same for one name."""
    for number in range(20):
        for password in (b"a", b"b"):
            assert users.verify(b"nobody%d" % number, password, "peer") is False
    assert all(len(set(pair)) == 1 for pair in zip(checks[::2], checks[1::2], strict=True))
    assert set(checks) == set(users._hashes.values())
    assert len(checks) == 40


def test_memory_is_bounded_and_right_passwords_stay(users: Users, checks: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of wrong ones must not make the right ones cost a bcrypt again."""
    monkeypatch.setattr(auth, "MOST_REMEMBERED", 10)
    users.verify(b"alice", b"wonder", "peer")
    for number in range(30):
        users.verify(b"alice", b"%d" % number, "peer")
    checks.clear()
    assert users.verify(b"alice", b"wonder", "peer") is True
    assert (len(checks), len(users._wrong), len(users._waiting)) == (0, 10, 0)


def test_nothing_remembered_is_a_password(users: Users) -> None:
    """A core dump or a swapped page must not give passwords away."""
    users.verify(b"alice", b"wonder", "peer")
    users.verify(b"alice", b"almost-right", "peer")
    remembered = repr((users._right, users._wrong))
    assert "wonder" not in remembered
    assert "almost" not in remembered


def test_flood_keeps_out_neither_the_known_nor_other_addresses(users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is known waits for nothing; who is not waits for a few, whoever floods; and one address has few of the places."""
    users.verify(b"alice", b"wonder", "scraper")
    policies, inside, real = threading.Event(), threading.Semaphore(0), users._checkpw

    def slow(password: bytes, of: bytes) -> bool:
        inside.release()
        policies.wait(PATIENCE)
        return real(password, of)

    monkeypatch.setattr(users, "_checkpw", slow)
    answers: list[Any] = []

    def ask(name: bytes, password: bytes, peer: str) -> threading.Thread:
        thread = threading.Thread(target=lambda: answers.append(users.verify(name, password, peer)))
        thread.start()
        return thread

    flood = [ask(b"alice", b"%d" % number, "flood") for number in range(20)]
    assert inside.acquire(timeout=PATIENCE)
    until = time.monotonic() + PATIENCE
    while len(answers) < 20 - auth.MOST_WAITING_OF_ONE_PEER:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert set(answers) == {None}
    assert users.verify(b"alice", b"wonder", "scraper") is True
    newcomer = ask("b\u00f6b".encode(), b"\xff\0" + b"x" * 70, "newcomer")
    policies.set()
    for thread in (*flood, newcomer):
        thread.join(PATIENCE)
    assert answers[18:].count(True) == 1
    assert answers[18:].count(False) == auth.MOST_WAITING_OF_ONE_PEER


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "not a bcrypt hash"),
        ("wonder", "not a bcrypt hash"),
        ("$2x$04$" + "." * 53, "not a bcrypt hash"),
        ("$2y$04$" + "." * 52, "not a bcrypt hash"),
        ("$2y$03$" + "." * 53, "cost 03"),
        ("$2y$31$" + "." * 53, "cost 31"),
        ("$2y$04$" + "." * 21 + "z" + "." * 31, "its salt is invalid"),
        ("$2y$04$" + "." * 53 + "\n", "not a bcrypt hash"),
    ],
)
def test_bad_hash(text: str, part: str) -> None:
    """It has to be said at start, and without the text, which may be the password itself."""
    reason = refusal(text) or ""
    assert part in reason
    assert not text or text not in reason


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
def test_hashes_of_other_tools(prefix: str) -> None:
    """What htpasswd, PHP and others write is the same hash."""
    text = prefix + hashed(b"wonder")[4:]
    assert refusal(text) is None
    assert Users({"a": text}).verify(b"a", b"wonder", "peer") is True


def admitted(policy: AccessPolicy, authorization: str | None = None) -> int:
    headers = {} if authorization is None else {"authorization": authorization}
    try:
        return int(policy.admit(Request("GET", "/", headers, "localhost", keep_alive=True), "peer"))
    except Refused as refused:
        return refused.response.status.value


def basic(credentials: bytes) -> str:
    return base64.b64encode(credentials).decode()


@pytest.mark.parametrize(
    ("authorization", "answer"),
    [
        (f"Basic {basic(b'alice:wonder')}", 1),
        (f"bASIC  {basic(b'alice:wonder')}", 1),
        (f"Basic {basic(b'alice:wonder:')}", 401),
        (f"Basic {basic(b'alice')}", 401),
        (f"Bearer {basic(b'alice:wonder')}", 401),
        (f"Basic {basic(b'alice:wonder')}, Basic {basic(b'alice:wonder')}", 401),
        (f"Basic {basic(b'alice:wonder').rstrip('=')}x", 401),
        ("Basic", 401),
        ("Basic \xff", 401),
        ("", 401),
        (None, 401),
    ],
)
def test_authorization_header(users: Users, authorization: str | None, answer: int) -> None:
    """Only what is clearly a name and a password is taken for such."""
    assert admitted(AccessPolicy(users=users), authorization) == answer


@given(authorization=st.one_of(st.text(st.characters(max_codepoint=255)), st.binary().map(lambda data: f"Basic {basic(data)}")))
def test_any_authorization_header_is_answered(authorization: str) -> None:
    """It comes from anybody."""

    class Nobody:
        def verify(self, *_: object) -> bool:
            return False

    assert admitted(AccessPolicy(users=Nobody()), authorization) == 401  # type: ignore[arg-type]


def test_without_users_nobody_is_known() -> None:
    """A password that was not checked proves nothing."""
    assert admitted(Open().policy(), f"Basic {basic(b'alice:wonder')}") == 0


def test_rate_limit() -> None:
    """As in golang.org/x/time/rate: the bucket is full at first, and one token comes back each interval."""
    now = [100.0]
    limiter = Limiter(2.0, 3, lambda: now[0])
    assert [limiter.allows() for _ in range(5)] == [True, True, True, False, False]
    now[0] += 1.9
    assert not limiter.allows()
    now[0] += 0.2
    assert [limiter.allows() for _ in range(2)] == [True, False]
    now[0] += 1000
    assert [limiter.allows() for _ in range(4)] == [True, True, True, False]


def test_limit_comes_before_the_password(users: Users, checks: list[bytes]) -> None:
    """As in the toolkit; or else a flood would still cost bcrypts."""
    policy = AccessPolicy(users=users, limiter=Limiter(1000, 1))
    assert [admitted(policy, f"Basic {basic(b'alice:%d' % n)}") for n in range(3)] == [401, 429, 429]
    assert len(checks) == 1
