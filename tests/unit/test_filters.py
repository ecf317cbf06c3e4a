from __future__ import annotations

import pytest

from exporter.config.options import Filter
from exporter.model import NS, Mode, Outcome
from exporter.records.filters import compiled
from exporter.records.record import Record

_PLAIN = Record(1, NS // 2, 10, 1, 1000, b"python3", b"make", b"/usr/bin/python3", Outcome.ERROR, 1, 5, b"/", Mode.EBPF_CORE)
RECORD = _PLAIN._replace(
    spawner=b"cron", user="ci", owner_kind="pod", unit="cron@.service", namespace="shop", pod="cart-0", container="web"
)


def passes(wanted: Filter, record: Record = RECORD) -> bool:
    wants = compiled(wanted)
    assert wants is not None
    return wants(record)


def test_no_key_is_no_filter() -> None:
    """Who filters nothing should not pay for a call each record."""
    assert compiled(Filter()) is None


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(comm=("make", "python*")), True),
        (Filter(comm=("ytho",)), False),
        (Filter(comm=("Python3",)), False),
        (Filter(parent=("ma?e",)), True),
        (Filter(parent=("sh",)), False),
        (Filter(exe=("/usr/*",)), True),
        (Filter(exe=("/bin/*",)), False),
        (Filter(spawner=("cr*",)), True),
        (Filter(spawner=("sh",)), False),
        (Filter(user=("root", "ci")), True),
        (Filter(user=("root",)), False),
        (Filter(unit=("cron@*",)), True),
        (Filter(unit=("cron",)), False),
        (Filter(namespace=("shop",), pod=("cart-?",), container=("web",)), True),
        (Filter(namespace=("shop",), pod=("cart-?",), container=("db",)), False),
        (Filter(uid=(0, 1000)), True),
        (Filter(uid=(0,)), False),
        (Filter(outcome=("error", "signal")), True),
        (Filter(outcome=("ok",)), False),
        (Filter(min_runtime_seconds=0.5), True),
        (Filter(min_runtime_seconds=0.6), False),
        (Filter(max_runtime_seconds=0.5), True),
        (Filter(max_runtime_seconds=0.4), False),
        (Filter(comm=("python*",), uid=(1000,), outcome=("error",), max_runtime_seconds=1), True),
        (Filter(comm=("python*",), uid=(0,)), False),
    ],
)
def test_each_key_has_to_match(wanted: Filter, expected: bool) -> None:
    """One key that is ignored would send everything to whoever wanted little."""
    assert passes(wanted) is expected


def test_names_are_matched_as_they_are_shown() -> None:
    """A glob is copied from the page or a metric, where a byte that doesn't print is escaped."""
    hostile = RECORD._replace(comm=b"a\n\xff")
    assert passes(Filter(comm=(r"a\x0a\xff",)), hostile)
    assert passes(Filter(comm=("a*",)), hostile)


def test_an_unknown_uid_is_nobody_in_the_list() -> None:
    """None must not count as root."""
    assert not passes(Filter(uid=(0,)), RECORD._replace(uid=None))
