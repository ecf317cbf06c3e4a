"""The capture ratio: what was seen of what the kernel counted."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest

from exporter.model import NS
from exporter.supervision import completeness
from exporter.supervision.completeness import Completeness, Sample


class Host:
    """The kernel's count, the source's, and the clock, set by hand."""

    def __init__(self) -> None:
        self.kernel: int | None = 1_000_000
        self.observed = 500
        self.ns = 0
        self.completeness = Completeness(lambda: self.kernel, lambda: self.ns)
        self.completeness.begin(lambda: self.observed)

    def clone(self, n: int, seen: int | None = None) -> None:
        assert self.kernel is not None
        self.kernel += n
        self.observed += n if seen is None else seen

    def sample(self, *, immediate: bool = True) -> Sample | None:
        return self.completeness.sample(lambda: self.observed, immediate=immediate)

    def tick(self, seconds: int = 1) -> None:
        self.completeness.tick(self.sample())
        self.ns += seconds * NS

    def ratio(self) -> float | None:
        last_minute = self.completeness.last_minute(self.sample())
        return None if last_minute is None else last_minute.ratio


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completeness, "_PAUSE_SECONDS", 0)
    monkeypatch.setattr(completeness, "_STILL_SECONDS", 0)


@pytest.fixture
def host() -> Host:
    return Host()


def test_both_counts_begin_at_the_start(host: Host) -> None:
    """What the kernel cloned since boot is not ours to have seen."""
    assert host.sample() == Sample(0, 0)
    host.clone(7, seen=5)
    assert host.sample() == Sample(7, 5)


def test_no_clones_is_nothing_missed(host: Host) -> None:
    """An idle host is no reason for an alert."""
    host.tick()
    assert host.ratio() == 1


def test_the_ratio_is_what_was_seen(host: Host) -> None:
    """Of all clones since the start, while that is less than a minute ago."""
    host.tick()
    host.clone(10, seen=4)
    assert host.ratio() == 0.4


def test_what_is_longer_ago_than_a_minute_is_forgotten(host: Host) -> None:
    """A loss an hour ago must not hide in an average, nor one of now behind good hours."""
    host.tick(30)
    host.clone(90, seen=0)
    host.tick(29)
    host.clone(10)
    assert host.ratio() == 0.1
    host.tick(31)
    host.tick()
    assert host.ratio() == 1, "since the loss, all was seen"
    host.clone(10, seen=0)
    assert host.ratio() == 0.5


def test_the_history_is_bounded(host: Host) -> None:
    """A minute of samples, one a second, however long it runs."""
    for _ in range(500):
        host.tick()
    assert len(host.completeness._history) <= 62


def test_asking_changes_nothing(host: Host) -> None:
    """Two Prometheus servers see the same."""
    host.tick()
    host.clone(10, seen=4)
    assert [host.ratio() for _ in range(3)] == [0.4] * 3


def test_unknown_without_the_kernels_count(host: Host) -> None:
    """A /proc/stat that can't be read makes the ratio absent, not 0 or 1."""
    host.tick()
    host.kernel = None
    assert host.sample() is None
    assert host.ratio() is None
    host.tick()
    host.kernel = 1_000_000
    assert host.ratio() is None
    host.tick()
    assert host.ratio() == 1


def test_unknown_where_it_was_never_known() -> None:
    """Without a beginning there is nothing to compare."""
    without = Completeness(lambda: None)
    without.begin(lambda: 0)
    assert without.sample(lambda: 5, immediate=True) is None
    without.tick(None)
    assert without.last_minute(None) is None


def test_clones_between_the_readings_are_no_loss() -> None:
    """In a storm the source moves on while the kernel's count is read; what lies in between is agreement."""
    counts = iter([0, 0, 100, 140])
    compared = Completeness(iter([0, 0, 120]).__next__)
    compared.begin(lambda: next(counts))
    assert compared.sample(lambda: next(counts), immediate=True) == Sample(120, 120)


def test_the_kernel_counts_a_moment_before_it_tells() -> None:
    """A source that tells at once is asked again before a clone is called missed."""
    late: Iterator[int] = iter([0, 0, 9, 9, 9, 10])
    compared = Completeness(iter([0, 0, 10, 10]).__next__)
    compared.begin(lambda: next(late))
    assert compared.sample(lambda: next(late), immediate=True) == Sample(10, 10)


def test_a_scan_is_not_waited_for(host: Host) -> None:
    """It finds a clone later or never; asking it again at once is of no use."""
    host.clone(10, seen=0)
    answers = iter([500, 500])
    assert host.completeness.sample(lambda: next(answers), immediate=False) == Sample(10, 0)


def test_a_loss_is_a_loss_however_often_it_is_asked(host: Host) -> None:
    """Trying again ends."""
    host.clone(10, seen=3)
    assert host.sample() == Sample(10, 3)


def test_neither_count_ever_falls(host: Host) -> None:
    """Both are counters; a clone that the source saw before the kernel's count was read is not taken back."""
    samples = []
    for step in range(50):
        host.clone(step % 7, seen=step % 5)
        samples.append(host.sample())
    assert all(a is not None and b is not None and a.kernel <= b.kernel and a.observed <= b.observed for a, b in pairwise(samples))
