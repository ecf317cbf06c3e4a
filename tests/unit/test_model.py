"""Names as text, and counts that add up."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.model import Gauges, Lost, comm_text
from exporter.model.counts import Breakdown, Counts, ProcessCounts
from exporter.model.dimensions import COMM

# pieces that escapes are made of, so that a comm may look like an escape
PIECES = [
    b"\\",
    b"x",
    b"u",
    b"U",
    b"8",
    b"5",
    b"00",
    b"\n",
    b"\x7f",
    b"\x85",
    b"\xff",
    "é".encode(),
    "\u0085".encode(),
    "\u202e".encode(),
    b" ",
]
PIECES += ["\U000e0001".encode(), "\u2028".encode(), b"\xed\xb2\x80", b'"', b"{", b"\xf0\x9f", "\U0001f600".encode()]
comms = st.binary(max_size=15).filter(lambda comm: 0 not in comm) | st.lists(st.sampled_from(PIECES)).map(
    lambda pieces: b"".join(pieces)[:15]
)


@given(comms)
@example(b"\\x85")
@example(b"\x85")
@example("\u0085".encode())
def test_a_comm_can_be_had_back_from_its_text(comm: bytes) -> None:
    """So different comms never share a series."""
    assert _comm(comm_text(comm)) == comm


@given(comms)
def test_the_text_of_a_comm_is_harmless(comm: bytes) -> None:
    """It prints, on one line, and can be encoded anywhere."""
    text = comm_text(comm)
    assert text.isprintable()
    assert text.encode().decode() == text


@pytest.mark.parametrize(
    ("comm", "text"),
    [
        (b"bash", "bash"),
        (b"[kernel]", "[kernel]"),
        (b'{le="1"}', '{le="1"}'),
        ("grüße".encode(), "grüße"),
        (b'a"b\\c\n', 'a"b\\\\c\\x0a'),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("\u202eevil".encode(), "\\u202eevil"),
        ("\u0085".encode(), "\\u0085"),
        (b"", ""),
    ],
)
def test_comm_text(comm: bytes, text: str) -> None:
    """The ordinary ones stay as they are; what does not print is told apart from what looks like it."""
    assert comm_text(comm) == text


def test_seconds_of_two_sources() -> None:
    """During a switch both see short exits, and each second has those of both."""
    gauges = Gauges({10: 3, 11: 5}, scan_duration_seconds=0.5).with_short_exits({11: 4, 12: 1})
    assert (gauges.short_exits, gauges.scan_duration_seconds) == ({10: 3, 11: 9, 12: 1}, 0.5)
    assert gauges.peak_per_second == 9
    assert Gauges().peak_per_second is None
    assert Gauges().with_short_exits({}).peak_per_second == 0


def test_adding_keeps_buckets_that_one_side_has_not() -> None:
    """A mode may keep no histogram by name."""
    counts = ProcessCounts(short_exits=1)
    counts.add(ProcessCounts(short_exits=2, buckets=[1, 0]))
    counts.add(ProcessCounts(short_exits=3))
    counts.add(ProcessCounts(buckets=[1, 4]))
    assert counts == ProcessCounts(short_exits=6, buckets=[2, 4])


def test_a_copy_is_independent() -> None:
    """What a view shows must not grow behind its back."""
    counts = ProcessCounts(exits=[1, 0, 0, 0], buckets=[1])
    copy = counts.copy()
    copy.add(counts)
    assert counts == ProcessCounts(exits=[1, 0, 0, 0], buckets=[1])
    assert copy == ProcessCounts(exits=[2, 0, 0, 0], buckets=[2])


def test_nameless_counts_add_up() -> None:
    """All but the names goes from a drain into the totals."""
    counts = Counts(forks=1, signals={9: 1}, lost={Lost.UNSEEN: 1})
    counts.add_totals(Counts(forks=2, threads=3, core_dumps=4, signals={9: 1, 15: 2}, lost={Lost.UNSEEN: 1, Lost.VANISHED: 2}))
    assert counts == Counts(forks=3, threads=3, core_dumps=4, signals={9: 2, 15: 2}, lost={Lost.UNSEEN: 2, Lost.VANISHED: 2})


def _comm(text: str) -> bytes:
    """What `comm_text` made the text of."""

    def unescaped(match: re.Match[str]) -> bytes:
        kind, digits = match[1][0], match[1][1:]
        return b"\\" if kind == "\\" else bytes([int(digits, 16)]) if kind == "x" else chr(int(digits, 16)).encode()

    parts, at = [], 0
    for match in re.finditer(r"\\(\\|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})", text):
        parts += [text[at : match.start()].encode(), unescaped(match)]
        at = match.end()
    return b"".join([*parts, text[at:].encode()])


def _filled() -> Counts:
    """Counts with a 7 everywhere."""
    values: dict[str, Any] = {each.name: [7] * 4 if each.name in ("exits", "buckets") else 7 for each in fields(ProcessCounts)}
    one = ProcessCounts(**values | {"lifetimes": {1: 7}})
    filled = Counts(total=one, by={COMM: Breakdown({b"a": one.copy()}, one.copy())})
    for each in fields(Counts):
        value = getattr(filled, each.name)
        setattr(filled, each.name, 7 if isinstance(value, int) else {1: 7} if value == {} else value)
    return filled


def test_a_copy_has_everything_and_shares_nothing() -> None:
    """A scrape looks at a copy: what was forgotten in it would be missing, what is shared would change under the scrape."""
    filled = _filled()
    copied = filled.copy()
    assert copied == filled
    assert not set(_changeable(filled)) & set(_changeable(copied))


def test_a_sum_has_everything_and_shares_nothing() -> None:
    """Two sources may count at a time; a scrape shows the sum."""
    filled, total = _filled(), Counts()
    total.add(filled)
    assert total == filled
    assert not set(_changeable(filled)) & set(_changeable(total))
    total.add(filled)
    assert re.sub(r"\b14\b", "7", repr(total)) == repr(filled)  # addresses are words of their own


def _changeable(value: Any) -> Iterator[int]:
    """The identities of all that can be changed in place."""
    if isinstance(value, (list, dict, Counts, Breakdown, ProcessCounts)):
        yield id(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, (Counts, Breakdown, ProcessCounts)):
        parts = [getattr(value, each.name) for each in fields(value)]
    for part in parts:
        yield from _changeable(part)
