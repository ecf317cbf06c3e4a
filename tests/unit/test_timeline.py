"""The seconds that the page draws and its rates are made of."""

from __future__ import annotations

import pytest

from exporter.web.timeline import KEPT_SECONDS, Timeline


def test_a_burst_is_in_its_second() -> None:
    """Also where the loop comes late: the source knows the last 60 seconds by itself."""
    timeline = Timeline()
    timeline.note(1000, {999: 3})
    timeline.note(1004, {999: 3, 1001: 500, 1003: 2})
    assert timeline.seconds().last(6).short_exits == [None, 3, 0, 500, 0, 2]


def test_rates_over_several_times() -> None:
    """A burst shows now, and fades in the longer ones."""
    timeline = Timeline()
    for second in range(1, 302):
        timeline.note(second, {second - 1: 510 if second > 296 else 10})
    assert [timeline.seconds().last(seconds).per_second() for seconds in (5, 60, 300)] == pytest.approx(
        [510, 10 + 500 * 5 / 60, 10 + 500 * 5 / 300]
    )


def test_what_is_known_of_a_young_exporter() -> None:
    """The first minute is not diluted by time in which nobody looked."""
    timeline = Timeline()
    assert timeline.seconds().last(60).per_second() is None
    timeline.note(100, {98: 50, 99: 7})
    timeline.note(102, {99: 7, 100: 13})
    assert timeline.seconds().last(60).per_second() == timeline.seconds().last(5).per_second() == 20 / 3


@pytest.mark.parametrize("away", [61, 10 * KEPT_SECONDS])
def test_nobody_counted_or_the_loop_stood_still(away: int) -> None:
    """Such seconds are not drawn as quiet ones."""
    timeline = Timeline()
    timeline.note(1000, {999: 5})
    timeline.note(1002, None)
    assert timeline.seconds().last(3).short_exits == [5, None, None]
    timeline.note(1002 + away, {})
    assert timeline.seconds().last(61).short_exits == [None] + 60 * [0]


def test_a_switch_of_modes_keeps_earlier_seconds() -> None:
    """The new source knows only what it saw itself."""
    timeline = Timeline()
    timeline.note(1000, {999: 5})
    timeline.note(1001, {1000: 2})
    assert timeline.seconds().last(2).short_exits == [5, 2]
