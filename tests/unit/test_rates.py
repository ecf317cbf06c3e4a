from __future__ import annotations

import pytest

from exporter.web.rates import KEPT_SECONDS, Rates


def test_rates_over_several_times() -> None:
    """A burst shows now, and fades in the longer ones."""
    rates = Rates()
    for second in range(301):
        rates.note(second, 10 * second + (500 if second > 295 else 0))
    assert rates.per_second(5) == pytest.approx((10 * 5 + 500) / 5)
    assert rates.per_second(60) == pytest.approx((10 * 60 + 500) / 60)
    assert rates.per_second(300) == pytest.approx((10 * 300 + 500) / 300)


def test_what_is_known_of_a_young_exporter() -> None:
    """The first minute is not diluted by time in which nobody looked."""
    rates = Rates()
    assert rates.per_second(60) is None
    rates.note(100, 7)
    assert rates.per_second(60) is None
    rates.note(102, 27)
    assert rates.per_second(60) == rates.per_second(5) == 10


def test_a_loop_that_stood_still() -> None:
    """Then the last sample is alone in its five seconds."""
    rates = Rates()
    rates.note(0, 0)
    rates.note(40, 80)
    assert rates.per_second(5) == 2


def test_samples_are_bounded() -> None:
    """Many pages at once ask for a sample each; few are kept."""
    rates = Rates()
    for number in range(100_000):
        rates.note(number / 50, number)
    assert len(rates._samples) < 1.2 * KEPT_SECONDS
    assert rates.per_second(300) == pytest.approx(50)
