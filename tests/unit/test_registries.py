"""Metrics that handlers have in registries of their own."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from exporter.handlers import registries
from exporter.handlers.registries import (
    MOST_BYTES,
    MOST_SERIES,
    Registries,
    RegistriesWriter,
    Unusable,
    UserFamily,
    checked,
    converted,
    parsed,
)
from exporter.metrics.exposition import Exposition, _of_user
from exporter.metrics.formats import OPENMETRICS, PROTOBUF
from exporter.metrics.protobuf import ProtobufEncoder
from exporter.metrics.text import TextEncoder
from exporter.supervision.reload import LastReload
from tests.unit.handler_child import eventually, planned, running
from tests.unit.protobuf_families import parse_protobuf
from tests.unit.snapshots import CONFIG, ordinary

MODULE = """
from exporter.handlers import Handler
from prometheus_client import CollectorRegistry, Counter, Histogram

class Counting(Handler):
    def __init__(self):
        self.registry = CollectorRegistry()
        self.seen = Counter("seen", "Records seen.", ["comm"], registry=self.registry)
        self.ours = Counter("shortproc_execs", "Not its own.", registry=self.registry)
        self.sizes = Histogram("sizes", "Sizes.", registry=self.registry, buckets=[1, 2])
    def handle(self, batch):
        for record in batch:
            self.seen.labels("a\\\\\\"b\\n").inc()
    def tick(self):
        self.sizes.observe(1.5)

class Broken(Handler):
    class registry:
        collect = staticmethod(lambda: 1 / 0)
    def handle(self, batch): pass
"""
ANY = UserFamily("mine", "gauge", "Mine.", ("a",), (), ((("x",), (1.0,), 0.0),))


@pytest.fixture
def memory_file() -> Iterator[int]:
    fd = os.memfd_create("metrics")
    os.ftruncate(fd, registries.file_size())
    yield fd
    os.close(fd)


def test_a_registry_of_a_handler_is_on_metrics(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In every format, checked: a handler can neither replace a metric of the exporter nor stop another handler's."""
    counting = planned(tmp_path, "Counting")
    (tmp_path / "some_handlers.py").write_text(MODULE)
    with running(planned_again(counting, "Counting"), planned_again(counting, "Broken")) as handlers:
        exposition = Exposition(CONFIG, ordinary, LastReload(), handlers)
        eventually(lambda: b"sizes_bucket" in exposition.render())
        text = exposition.render().decode()
        openmetrics = {family.name: family for family in parse_openmetrics(exposition.render(OPENMETRICS).decode())}
        protobuf = {family.name: family for family in parse_protobuf(exposition.render(PROTOBUF))}
        assert re.search(r'sizes_bucket\{le="1.0"\} 0.0\nsizes_bucket\{le="2.0"\} [1-9]', text)
        assert re.search(r"shortproc_handler_dropped_series 1\.0\n", text)
        assert text.count("\nshortproc_execs_total ") == 1
        assert openmetrics["sizes"].documentation == "Sizes."
        assert protobuf["sizes"].metric[0].histogram.created_timestamp.seconds > 1_700_000_000
        eventually(lambda: handlers.status().handlers[1].errors)
    assert handlers.registries() == Registries(), "they go with the process"
    logged = capfd.readouterr().err
    assert "'shortproc_execs_total' is not a name for a counter of a handler" in logged
    assert "a handler's metrics cannot be collected" in logged


def planned_again(plan: Any, name: str) -> Any:
    """The same with another class of the module."""
    return type(plan)(name, f"some_handlers:{name}", plan.path)


def test_what_is_shown_is_what_the_library_shows() -> None:
    """For each type that is supported."""
    registry = CollectorRegistry()
    Counter("c", "A counter.", ["z", "a"], registry=registry).labels("1", 'x"\\\n').inc(3)
    Gauge("g", "A gauge.", registry=registry).set(math.nan)
    histogram = Histogram("h", "A histogram.", ["a"], registry=registry)
    for value in (0.001, 3, 1e9):
        histogram.labels("x").observe(value)
    Info("i", "An info.", registry=registry).info({"version": "1"})
    Enum("e", "A state.", states=["a", "b"], registry=registry)
    found, problems = checked(map(converted, registry.collect()))
    assert problems == []
    library = re.sub(r"(# \w+ )?\w+_created.*\n", "", re.sub(r"# (HELP|TYPE) \w+_created.*\n", "", generate_latest(registry).decode()))
    assert TextEncoder().encode(map(_of_user, found.families)).decode() == library


def test_unsupported_types_are_refused() -> None:
    """Rather than shown as what they are not."""
    (summary,) = Summary("s", "A summary.", registry=None).collect()
    with pytest.raises(Unusable, match="type summary"):
        converted(summary)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "shortproc_mine"},
        {"name": "process_cpu_seconds_total"},
        {"name": "up"},
        {"name": "a.b"},
        {"name": "a\nb 1"},
        {"name": "x" * 200},
        {"kind": "counter"},
        {"about": "x" * 2000},
        {"about": "\udc80"},
        {"labels": ("__name__",)},
        {"labels": ("le",)},
        {"labels": ("a", "b")},
        {"labels": ("a", "a"), "series": ((("x", "y"), (1.0,), 0.0),)},
        {"series": ((("x",), (1.0,), 0.0), (("x",), (2.0,), 0.0))},
        {"series": ((("x" * 2000,), (1.0,), 0.0),)},
        {"series": ((("x",), (1.0, 2.0), 0.0),)},
        {"series": ((("x",), (1.0,), -1.0),)},
        {"series": ((("x",), (1.0,), math.inf),)},
        {"kind": "histogram", "series": ((("x",), (-1.0, 1.0), 0.0),)},
        {"kind": "histogram", "series": ((("x",), (0.5, 1.0), 0.0),)},
        {"kind": "histogram", "series": ((("x",), (math.nan, 1.0), 0.0),)},
        {"kind": "histogram", "bounds": (2.0, 1.0), "series": ((("x",), (1.0, 1.0, 1.0, 1.0), 0.0),)},
    ],
)
def test_what_cannot_be_shown_is_dropped_and_counted(changes: dict[str, Any]) -> None:
    """The family alone: others are shown."""
    family = ANY._replace(**changes)
    (kept, dropped), problems = checked([family, ANY._replace(name="other")])
    assert ([each.name for each in kept], dropped, len(problems)) == (["other"], len(family.series), 1)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ANY, ANY),
        (ANY._replace(name="h", kind="histogram", series=((("x",), (1.0, 1.0), 0.0),)), ANY._replace(name="h_count")),
        (ANY._replace(name="h_sum"), ANY._replace(name="h", kind="histogram", series=((("x",), (1.0, 1.0), 0.0),))),
        (ANY._replace(name="c_total", kind="counter"), ANY._replace(name="c")),
    ],
)
def test_two_cannot_have_one_name(first: UserFamily, second: UserFamily) -> None:
    """Parsers refuse the whole scrape then."""
    (kept, dropped), _ = checked([first, second])
    assert (kept, dropped) == ((first,), 1)


def test_there_are_at_most_so_many_series(memory_file: int) -> None:
    """The oldest stay: they have a past."""
    many = ANY._replace(series=tuple(((str(n),), (1.0,), 0.0) for n in range(MOST_SERIES + 500)))
    found, problems = checked([many, ANY._replace(name="other")])
    assert (found.families, found.dropped) == ((many._replace(series=many.series[:MOST_SERIES]),), 501)
    assert len(problems) == 2
    RegistriesWriter(memory_file).write(found)
    assert parsed(registries.read_body(memory_file) or b"") == found


def test_there_are_at_most_so_many_bytes(memory_file: int) -> None:
    """What does not fit into the file is dropped, and counted."""
    large = [ANY._replace(name=f"f{n}", series=tuple(((f"{m}{'x' * 1000}",), (1.0,), 0.0) for m in range(100))) for n in range(9)]
    RegistriesWriter(memory_file).write(Registries((*large,), 5))
    assert os.fstat(memory_file).st_size == registries.file_size()
    found = parsed(registries.read_body(memory_file) or b"")
    assert (found.families, found.dropped) == ((*large[:2],), 705)


def test_a_half_written_file_is_not_read(memory_file: int) -> None:
    """The child may be killed while it writes, or write while the exporter reads."""
    assert registries.read_body(memory_file) == b""
    RegistriesWriter(memory_file).write(Registries((ANY,), 0))
    os.pwrite(memory_file, b"X", 20)
    assert registries.read_body(memory_file) is None
    os.pwrite(memory_file, b"\xff" * 16, 0)
    assert registries.read_body(memory_file) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["counter", "gauge", "histogram", "a_total"]),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=30,
)
few_texts = st.lists(st.sampled_from(["a", "b", "le"]) | st.text(max_size=3), max_size=2)
few_numbers = st.lists(st.floats() | st.integers(), max_size=4)
near = st.tuples(
    st.sampled_from(["a", "b_total", "h", "process_x", "up"]) | st.text(max_size=4),
    st.sampled_from(["counter", "gauge", "histogram"]),
    st.text(max_size=4),
    few_texts,
    few_numbers,
    st.lists(st.tuples(few_texts, few_numbers, st.floats() | st.integers()), max_size=3),
)


@given(st.binary(max_size=50) | st.lists(near | json_values, max_size=4).map(lambda some: json.dumps([0, *some]).encode()))
@example(b"[" * MOST_BYTES)
@example(b'[1e999, ["a", "gauge", "", [], [], [[[], [1e999], 0]]]]')
@example(b"[0, [" + b"9" * 5000 + b"]]")
def test_a_child_that_was_taken_over_cannot_break_a_scrape(body: bytes) -> None:
    """Whatever it writes, each format can be read by its parser, and holds no name of ours."""
    found = parsed(body)
    families = [_of_user(each) for each in found.families]
    list(parse_openmetrics(TextEncoder().encode(map(_of_user, found.families), openmetrics=True).decode()))
    assert len(parse_protobuf(ProtobufEncoder().encode(map(_of_user, found.families)))) == len(families)
    assert not [each for each in families if each.family.name.startswith(("shortproc_", "process_", "python_"))]
