from __future__ import annotations

import contextlib
import json
import re
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.model import NS, Outcome, comm_text
from exporter.records.encoding import as_json, line
from exporter.records.kinds import rfc3339
from exporter.web.api import BadQuery, short_processes
from tests.unit.pages import HOSTILE, record

RECORDS = [
    record(0, b"cc1", runtime_ns=999_000_000),
    record(1, b"sh", Outcome.ERROR, 127, parent_comm=b"cron"),
    record(2, b"sh", Outcome.SIGNAL, 9, parent_comm=b"[kernel]", runtime_ns=5_000_000),
    record(3, b"cc1plus", Outcome.UNKNOWN, None, cpu_ns=None, uid=None, ppid=0, exe=b"", cgroup=b"", parent_comm=b""),
    record(4, b"[kernel]", Outcome.SIGNAL, 40),
    record(5, b"a*b?", spawner=b"cron", user="ci", owner_kind="pod", unit="", namespace="shop", pod="cart-0", container="web"),
]


def answer(query: str, records: list[Any] = RECORDS) -> dict[str, Any]:
    found = short_processes(reversed(records), query)
    text = b"".join(map(found.piece, range(len(found)))).decode()
    assert text.isascii()
    assert text.count("\n") == 1
    return dict(json.loads(text))


def found(query: str) -> list[int]:
    """Which of the records, the newest first."""
    return [each["pid"] - 1000 for each in answer(query)["short_processes"]]


def test_all_that_is_known() -> None:
    """People write programs against this: an answer has the very objects that lines of JSONL have."""
    assert answer("limit=1&comm=sh")["short_processes"] == [as_json(RECORDS[2])]


def test_both_ways_to_spell_a_record_agree() -> None:
    """The quick one, for many, and the plain one."""
    unknown = RECORDS[0]._replace(uid=None, cpu_ns=None, code=None, ppid=0, exe=b"", parent_comm=b"", cgroup=b"", outcome=Outcome.UNKNOWN)
    killed = RECORDS[0]._replace(outcome=Outcome.SIGNAL, code=40, comm=b'\xff"<\n')
    for each in (*RECORDS, unknown, killed, killed._replace(code=9), killed._replace(outcome=Outcome.ERROR)):
        assert json.loads(line(each)) == as_json(each)


def test_what_is_unknown_is_null() -> None:
    """Nobody may take it for 0 or for root."""
    (unknown,) = answer("outcome=unknown")["short_processes"]
    for key in ("ppid", "uid", "parent_comm", "exe", "exit_code", "signal", "cpu_seconds", "cgroup"):
        assert unknown[key] is None
    (failed,) = answer("outcome=error")["short_processes"]
    assert (failed["exit_code"], failed["signal"]) == (127, None)
    assert answer("comm=[[]kernel]")["short_processes"][0]["signal"] == "SIG40"


@pytest.mark.parametrize(
    ("query", "records"),
    [
        ("", [5, 4, 3, 2, 1, 0]),
        ("comm=cc1", [0]),
        ("comm=cc1*", [3, 0]),
        ("comm=%63c1%2A", [3, 0]),
        ("comm=?h", [2, 1]),
        ("comm=[[]kernel]", [4]),
        ("comm=[ks]*", [2, 1]),
        ("comm=CC1", []),
        ("comm=a*b?", [5]),
        ("parent=cron", [1]),
        ("parent=*&comm=sh", [2, 1]),
        ("outcome=signal", [4, 2]),
        ("spawner=cron", [5]),
        ("user=c?", [5]),
        ("unit=build*&comm=sh", [2, 1]),
        ("unit=cart*", []),
        ("namespace=shop&pod=cart-*&container=web", [5]),
        ("namespace=shop&pod=other", []),
        ("min_runtime=0.005", [2, 0]),
        ("min_runtime=0.005000001", [0]),
        ("min_runtime=1", []),
        ("since=1700000000.003", [5, 4, 3]),
        ("since=2023-11-14T22:13:20.004Z", [5, 4]),
        ("since=2023-11-14T23:13:20.004%2B01:00", [5, 4]),
        ("since=2023-11-14T22:13:21Z", []),
        ("limit=2", [5, 4]),
        ("comm=sh&outcome=error&min_runtime=0&since=0&limit=10&parent=c*n", [1]),
    ],
)
def test_filters(query: str, records: list[int]) -> None:
    """Each one, and together."""
    assert found(query) == records


def test_limit_says_whether_there_is_more() -> None:
    """A program must not take a part for the whole."""
    assert [answer(query)["truncated"] for query in ("limit=5", "limit=6", "comm=sh&limit=2", "comm=sh&limit=1")] == [
        True,
        False,
        False,
        True,
    ]
    assert answer("")["limit"] == 100
    assert len(answer("", RECORDS * 100)["short_processes"]) == 100


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (
            "pid=1",
            "unknown parameter; there are comm, parent, spawner, user, unit, namespace, pod, container, outcome, min_runtime, ",
        ),
        ("&", "unknown parameter"),
        ("limit=5&limit=5", "limit is given more than once"),
        ("comm", "comm is empty"),
        ("comm=", "comm is empty"),
        ("comm=%ff", "comm is not UTF-8"),
        ("comm=" + 257 * "a", "comm is not a glob of 1 to 256 characters, such as make or python*"),
        ("outcome=OK", "outcome is none of ok, error, signal, unknown"),
        ("outcome=ok%0d%0aX:1", "outcome is none of"),
        ("min_runtime=-1", "min_runtime is not a number of seconds"),
        ("min_runtime=nan", "min_runtime is not a number of seconds"),
        ("min_runtime=1e9", "min_runtime is not a number of seconds"),
        ("min_runtime=1%C2%B2", "min_runtime is not a number of seconds"),
        ("since=yesterday", "since is neither Unix seconds nor a time"),
        ("since=2023-11-14T22:13:20", "since lacks a time zone"),
        ("since=9999999-01-01T00:00:00Z", "since is neither"),
        ("limit=0", "limit is not a whole number from 1 to 100000"),
        ("limit=100001", "limit is not a whole number"),
        ("limit=1.5", "limit is not a whole number"),
        ("limit=%D9%A1", "limit is not a whole number"),
    ],
)
def test_refusals(query: str, reason: str) -> None:
    """Whoever mistypes a filter must not get all the rest for it; the line is our own, so it can carry nothing in."""
    with pytest.raises(BadQuery, match="^" + re.escape(reason)) as caught:
        answer(query)
    assert str(caught.value).isprintable()


@given(
    query=st.one_of(
        st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60),
        st.lists(
            st.tuples(st.sampled_from(["comm", "parent", "outcome", "min_runtime", "since", "limit"]), st.text(max_size=30)), max_size=3
        ).map(lambda pairs: urlencode(pairs, errors="surrogatepass")),
        st.datetimes().map(lambda moment: f"since={moment.isoformat()}Z"),
    )
)
@example("since=0001-01-01T00:00:00%2B23:59")
@example("since=9999-12-31T23:59:59-23:59")
def test_any_query_is_answered_or_refused(query: str) -> None:
    """Nothing that a client writes may be an error of ours."""
    with contextlib.suppress(BadQuery):
        answer(query)


@given(comm=st.binary(min_size=1, max_size=15))
def test_what_is_shown_can_be_asked_for(comm: bytes) -> None:
    """A person copies a name from the page, and quotes a `[` in it. `*` and `?` match at least themselves."""
    query = f"comm={quote(comm_text(comm).replace('[', '[[]'))}"
    assert [each["comm"] for each in answer(query, [record(0, comm)])["short_processes"]] == [comm_text(comm)]


@pytest.mark.parametrize("comm", HOSTILE)
def test_hostile_names_are_plain_text(comm: bytes) -> None:
    """Terminals, browsers and log viewers act on what they should show."""
    (shown,) = answer("", [record(0, comm)])["short_processes"]
    assert shown["comm"] == comm_text(comm)
    assert shown["comm"].isprintable()
    assert shown["exe"].isprintable()


@pytest.mark.parametrize("pattern", ["*a" * 128, "a*" * 128, "?*" * 128, "*" * 256, "*" * 254 + "ab", "*[!b]" * 51, "*" + "a" * 255])
def test_no_pattern_burns_the_processor(pattern: str) -> None:
    """Patterns with many stars are the classic way to make a matcher run for years."""
    answer(f"comm={pattern}&parent={pattern}", [record(number, b"a" * 15, parent_comm=b"a" * 15) for number in range(1000)])


@given(ns=st.integers(0, 4_000_000_000 * NS))
def test_times_are_exact(ns: int) -> None:
    """Nanoseconds do not survive a float."""
    text = rfc3339(ns)
    assert len(text) == 30
    assert int(text[-10:-1]) == ns % NS
    if ns % 1000 == 0:
        assert answer(f"since={text}", [record(0, ended_ns=ns)])["short_processes"]
