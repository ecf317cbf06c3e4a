"""What the proc connector sends, in every length and shape that it may come in."""

from __future__ import annotations

import errno

from hypothesis import given
from hypothesis import strategies as st

from exporter.kernel.proc_connector import (
    EVENT_COMM,
    EVENT_EXEC,
    EVENT_EXIT,
    EVENT_FORK,
    EVENT_NONE,
    SLOT_BYTES,
    acknowledged,
    comm_of,
    events,
)
from tests.unit.netlink_messages import decoded, event, recorded, slots

KINDS = {EVENT_FORK, EVENT_EXEC, EVENT_COMM, EVENT_EXIT}


def test_recorded_events_are_whole() -> None:
    """Each process of the recording is born and ends, whoever listened."""
    for name in ("root-events", "nobody-events"):
        found = decoded(recorded(name))
        assert None not in found
        told = [each for each in found if each is not None]
        assert {each[0] for each in told} == KINDS
        forks = sorted(each[8] for each in told if each[0] == EVENT_FORK)
        exits = sorted(each[6] for each in told if each[0] == EVENT_EXIT)
        assert forks == exits, "by process: an exec in another thread changes thread ids"


def test_recorded_names() -> None:
    """A rename brings the name along."""
    datagrams = recorded("root-events")
    view = slots(datagrams)
    names = [comm_of(view, i) for i, each in enumerate(decoded(datagrams)) if each is not None and each[0] == EVENT_COMM]
    assert {b"c0", b"c1", b"c2"} <= set(names)


def test_a_message_cut_anywhere_is_skipped() -> None:
    """The slot behind it holds an older message: what is not of this one must not be read."""
    for datagram in recorded("root-events"):
        assert decoded([datagram[:n] for n in range(len(datagram))]) == [None] * len(datagram)


def test_the_good_ones_beside_a_corrupt_one_count() -> None:
    """One bad message must not cost its neighbours."""
    good = event(EVENT_EXEC, (5, 5), at_ns=7)
    foreign = bytearray(good)
    foreign[16] = 2  # another user of the connector
    first, second, third = decoded([good, bytes(foreign), good])
    assert first == third == (EVENT_EXEC, 0, 7, 0, 0, 5, 5, 0, 0, 0, 0)
    assert second is None


def test_exits_of_kernels_that_name_no_parent() -> None:
    """Before Linux 4.18 the fields are absent or zero, and what lies behind them is not a parent."""
    assert decoded([event(EVENT_EXIT, (5, 5, 256, 17), data_len=32)]) == [(EVENT_EXIT, 0, 0, 0, 0, 5, 5, 256, 17, 0, 0)]


def test_events_that_a_newer_kernel_made_longer() -> None:
    """Fields are only ever appended."""
    assert decoded([event(EVENT_FORK, (1, 1, 5, 5), data_len=56)]) == [(EVENT_FORK, 0, 0, 0, 0, 1, 1, 5, 5, 0, 0)]


def test_acknowledgements() -> None:
    """Only that of our own request counts, and it may be a refusal."""
    answer = bytearray(event(EVENT_NONE, (errno.EPERM,)))
    answer[28:32] = (78).to_bytes(4, "little")
    assert acknowledged(bytes(answer), 77) == errno.EPERM
    assert acknowledged(bytes(answer), 78) is None
    assert acknowledged(event(EVENT_EXIT, (1,)), 0) is None
    assert acknowledged(b"", 77) is None


@given(st.lists(st.binary(max_size=SLOT_BYTES), max_size=4))
def test_random_bytes_are_no_crash(datagrams: list[bytes]) -> None:
    """Nothing that arrives may stop the exporter."""
    assert len(decoded(datagrams)) == len(datagrams)


@given(st.binary(max_size=40), st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1))
def test_right_headers_with_random_content(content: bytes, length: int, data_len: int) -> None:
    """Lengths that lie are found out."""
    datagram = bytearray(event(EVENT_EXIT, (1, 2, 3, 4, 5, 6))[:36] + content)
    datagram[:4] = length.to_bytes(4, "little")
    datagram[32:34] = data_len.to_bytes(2, "little")
    (found,) = events(slots([bytes(datagram)]), [len(datagram)])
    assert found is None or length <= len(datagram)
