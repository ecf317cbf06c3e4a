from __future__ import annotations

import logging
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.handlers.wire import (
    MOST_FRAME_BYTES,
    MOST_RECORDS,
    Content,
    Frames,
    HandlerTally,
    Page,
    PageWriter,
    frame,
    page_size,
    read_page,
)
from exporter.model import Mode, Outcome
from exporter.process.rate_limited_log import RateLimitedLog
from exporter.records.attributed import ADDED
from exporter.records.record import Record
from tests.unit.handler_child import record

SIGNED = st.integers(0, 2**63 - 1)
RECORDS = st.builds(
    Record,
    SIGNED,
    SIGNED,
    st.integers(0, 2**22),
    st.integers(0, 2**22),
    st.none() | st.integers(0, 2**32 - 1),
    st.binary(max_size=15),
    st.binary(max_size=15),
    st.binary(max_size=256),
    st.sampled_from(Outcome),
    st.none() | st.integers(0, 255),
    st.none() | SIGNED,
    st.binary(max_size=300),
    st.sampled_from(Mode),
    st.binary(max_size=15),
    *[st.text(max_size=20)] * len(ADDED),
)


@given(st.lists(st.lists(RECORDS, min_size=1, max_size=5), max_size=5), st.lists(st.integers(1, 400), max_size=20))
def test_frames_survive_any_cut(batches: list[list[Record]], cuts: list[int]) -> None:
    """A pipe gives what it has, not what was written."""
    data, frames, got = b"".join(map(frame, batches)), Frames(), list[Record]()
    for size in [*cuts, len(data)]:
        for records, _ in frames.feed(data[:size]):
            assert 0 < len(records) <= MOST_RECORDS
            got += records
        data = data[size:]
    assert got == [each for batch in batches for each in batch]


def test_a_call_has_a_bound() -> None:
    """A handler's time limit is for a call, so that a call must have a limit too."""
    data = b"".join(frame([record(number)] * 300) for number in range(4))
    assert [len(batch) for batch, _ in Frames().feed(data)] == [300] * 4
    small = b"".join(frame([record(number)]) for number in range(MOST_RECORDS + 1))
    assert [len(batch) for batch, _ in Frames().feed(small)] == [MOST_RECORDS, 1]


def test_a_frame_has_a_bound() -> None:
    """The queue in front of the pipe is bounded by bytes; the longest names that Linux allows have to fit."""
    longest = record(comm=b"c" * 15, parent_comm=b"p" * 15, exe=b"/" * 255, arguments=b"\xff" * 512, arguments_cut=True)
    batch = [longest._replace(cgroup=b"/%04095d" % number, unit=f"{number:04}" + r"\xff" * 255) for number in range(MOST_RECORDS)]
    assert len(frame(batch)) < MOST_FRAME_BYTES
    assert next(Frames().feed(frame(batch))) == (batch, Content.RECORDS)
    with pytest.raises(ValueError, match="bytes"):
        frame([longest._replace(cgroup=bytes(MOST_FRAME_BYTES))])


def test_page_says_what_was_written() -> None:
    """The watchdog rests on it."""
    fd = os.memfd_create("page")
    os.ftruncate(fd, page_size(2))
    page = PageWriter(fd, 2)
    page.enter(1)
    assert read_page(fd, 2) == Page(1, 1, 0, (0, 0, 0, 0), (HandlerTally(), HandlerTally()))
    page.leave(1, HandlerTally(7, 1, 2, 3, 4, 5))
    page.done(10)
    page.events_done([0, 1, 2, 3])
    page.events_done([1, 1, 1, 1])
    assert read_page(fd, 2) == Page(2, 1, 10, (1, 2, 3, 4), (HandlerTally(), HandlerTally(7, 1, 2, 3, 4, 5)))
    assert read_page(fd, 3) is None
    os.close(fd)


def test_log_lines_are_rare() -> None:
    """A handler that fails 1,000 times a second must not fill a disk with saying so."""
    lines: list[logging.LogRecord] = []
    logger = logging.getLogger("test_log_lines_are_rare")
    logger.disabled, logger.filters = False, []
    logger.setLevel(logging.WARNING)
    logger.addFilter(lambda each: lines.append(each) or False)  # type: ignore[func-returns-value]
    now = 0.0
    rarely = RateLimitedLog(logger, lambda: now)
    for now in (0.0, 1.0, 59.9, 60.0, 61.0):  # noqa: B007
        rarely.warning("failed")
    assert [vars(each)["fields"] for each in lines] == [{}, {"not_logged_before": 2}]
