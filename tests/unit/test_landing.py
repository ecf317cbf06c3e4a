from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.model import NS, Outcome
from exporter.model.counts import ProcessCounts
from exporter.model.dimensions import COMM
from exporter.model.series import Row
from exporter.web import landing
from exporter.web.landing import PageStatus, changes, content_security_policy, render
from exporter.web.parts import Histogram, duration, percent
from exporter.web.rankings import tables
from tests.unit.pages import record, standing


def row(name: str, short: int, ended: int, cpu_seconds: float, short_cpu_seconds: float) -> Row:
    """What a command did."""
    times = round(cpu_seconds * NS), round(short_cpu_seconds * NS)
    return Row((name,), ProcessCounts([ended, 0, 0, 0], short, 0, 0, *times), 0)


NAMED = [row("sh", 812_333, 814_001, 1023.4442, 997.5), row("tiny", 1, 2, 0.00001, 0.0), row("cc1", 77, 78, 4000.5, 3999.25)]
OVERFLOWED = [row("gcc", 122, 122, 1, 1)]
STATUS = PageStatus(
    version="0.1.0",
    revision="abc1234",
    mode="ebpf_core",
    why="It is the best mode.",
    modes=(("ebpf_core", "active", "attached"), ("netlink", "usable", "answers")),
    capture_ratio=1.0,
    threshold_seconds=1.0,
    started=1_700_000_000.5,
    ended_processes=1_284_551,
    short_processes=1_280_412,
    rates=(1234.4, 12.34, None),
    peak_per_second=2114,
    bounds_seconds=(0.0001, 0.01, 1.0, 60.0),
    buckets=(1, 700, 299, 0, 0),
    rankings=tuple(tables({COMM: standing(NAMED, OVERFLOWED)})),
    lost=(("unseen", 0), ("cpu_never_came", 48)),
)
RECORDS = [record(2, b"gone", Outcome.SIGNAL, 9), record(1, b"bad", Outcome.ERROR, 3), record(0, b"well", cpu_ns=None, exe=b"")]
VOID = {"meta", "rect", "link", "br"}


class Outline(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.rows: dict[str, list[list[str]]] = {}
        """The cells' text by the id of their table."""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "table":
            self.table = self.rows.setdefault(str(dict(attrs).get("id")), [])
        elif tag == "tr":
            self.table.append([])
        elif tag in {"th", "td"}:
            self.table[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] in (["script"], ["style"]):
            return
        self.text += data
        if self.open[-1:] in (["th"], ["td"]):
            self.table[-1][-1] += data


def outline(status: PageStatus = STATUS, path: str = "/metrics", names: bool = True) -> Outline:
    page = Outline(render(status, path, RECORDS if names else None))
    assert not page.open
    return page


def test_shows_what_a_person_asks_first() -> None:
    """How many, how complete, which mode, where the metrics are."""
    page = outline()
    for part in (
        "Mode ebpf_core.",
        "It is the best mode.",
        "Complete: every new process",
        "1,280,412",
        "99.7 %",
        "1,284,551",
        "2,114 /s",
        "< 1 s",
    ):
        assert part in page.text
    for part in (
        "sh",
        "812,333",
        "1,023.444",
        "< 0.001",
        "gcc",
        "122",
        "cpu_never_came",
        "48",
        "netlink",
        "2023-11-14 22:13:20",
        "abc1234",
    ):
        assert part in page.text
    for part in ("1,234 /s", "12.3 /s", "in the last 5 min: ?", "3,999.250"):
        assert part in page.text
    assert "unseen" not in page.text  # nothing was lost by it
    assert ("href", "/metrics") in page.attributes


def test_names_are_hidden_with_a_reason() -> None:
    """A stranger must not learn what runs here, and an operator must learn what to do about it."""
    page = outline(names=False)
    assert not {"sh", "tiny", "gcc", "812,333", "cc1", "gone"} & set(page.text.split())
    assert "script" not in page.tags
    assert "web.public_records: true" in page.text
    assert "http://localhost" in page.text


@pytest.mark.parametrize(
    ("ratio", "words"), [(0.87349, "Incomplete: 87.3 %"), (0.99999, "Incomplete: 99.9 %"), (0.0, "Incomplete: 0.0 %"), (None, "is unknown")]
)
def test_incompleteness_is_said(ratio: float | None, words: str) -> None:
    """Never round up to complete."""
    text = outline(dataclasses.replace(STATUS, capture_ratio=ratio)).text
    assert words in text
    assert "Complete:" not in text


def test_degraded_and_inactive_modes_are_said() -> None:
    """Colour alone tells nothing to many."""
    assert "Mode scan, degraded." in outline(dataclasses.replace(STATUS, mode="scan", degraded=True)).text
    assert "No mode is active. It is the best mode." in outline(dataclasses.replace(STATUS, mode=None)).text


def test_a_host_where_nothing_happened_yet() -> None:
    """The first look comes a second after the start."""
    empty = dataclasses.replace(STATUS, ended_processes=0, short_processes=0, peak_per_second=None, buckets=(), lost=())
    empty = dataclasses.replace(empty, rankings=tuple(tables({COMM: standing([], [])})))
    text = Outline(render(empty, "/metrics", [])).text
    assert "no exits yet" in text
    assert "unknown in this mode" in text
    assert text.count("None yet.") == 8  # recent, three rankings of both kinds, lost


def test_recent_records_are_shown() -> None:
    """The page is whole without script, too."""
    cells = outline().rows["recent"][1:]
    assert cells == [
        ["22:13:20.002", "gone", "SIGKILL", "0.812", "0.300", "build.service", "runner", "make", "1002", "/usr/bin/gone"],
        ["22:13:20.001", "bad", "exit 3", "0.812", "0.300", "build.service", "runner", "make", "1001", "/usr/bin/bad"],
        ["22:13:20.000", "well", "ok", "0.812", "?", "build.service", "runner", "make", "1000", ""],
    ]


def test_a_status_event_has_all_that_can_change() -> None:
    """A number that the script forgot would stand still beside ones that move. Each text and table has a place of that id."""
    page, event = outline(), changes(STATUS)
    ids = {value for name, value in page.attributes if name == "id"}
    assert set(event["texts"]) | set(event["tables"]) | {"state", "recent", "runtimes", "histogram"} == ids
    for key, table in event["tables"].items():
        assert [list(row) for row in table["rows"]] or page.rows[key][1:] == [["None yet."]]
    assert [list(row) for row in event["histogram"]["rows"]] == page.rows["runtimes"][1:]


def test_histogram() -> None:
    """What happened at all must be seen, and the numbers be there for those who see no picture."""
    histogram = Histogram(STATUS.bounds_seconds, STATUS.buckets, STATUS.threshold_seconds)
    assert histogram.live()["bars"] == [1, 140, 60, 0, 0]
    assert histogram.live()["rows"][:2] == [("up to 0.1 ms", "1", "0.1 %"), ("up to 10 ms", "700", "70.0 %")]
    assert histogram.section().count('class="short"') == 3
    assert [duration(seconds) for seconds in (0.00025, 0.5, 1, 90, 300, 3600)] == ["0.25 ms", "500 ms", "1 s", "90 s", "5 min", "1 h"]


@given(hostile=st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).map(lambda text: f"<script src=//evil>'\"&{text}"))
def test_nothing_becomes_markup(hostile: str) -> None:
    """A comm is chosen by whoever runs the process."""
    status = dataclasses.replace(
        STATUS,
        version=hostile,
        revision=hostile,
        mode=hostile,
        why=hostile,
        modes=((hostile, hostile, hostile),),
        rankings=tuple(tables({COMM: standing([row(hostile, 1, 1, 1.0, 1.0)])})),
        lost=((hostile, 1),),
    )
    one = tuple(tables({COMM: standing([row("sh", 1, 1, 1.0, 1.0)])}))
    plain = dataclasses.replace(STATUS, modes=(("a", "b", "c"),), rankings=one, lost=(("a", 1),))
    comm = hostile.encode()
    records = [record(number, comm, parent_comm=comm, exe=comm, cgroup=comm) for number in range(3)]
    page = Outline(render(status, f"/{hostile}", records))
    assert page.tags.count("script") == 1
    assert len(page.tags) == len(outline(plain).tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in {"style", "src"}]


def test_page_is_self_contained_and_its_policy_fits() -> None:
    """Monitoring hosts have no way to the Internet; a policy whose hash is stale would show the page bare."""
    html = render(STATUS, "/metrics", RECORDS)
    assert not re.search(r"<link|<img|@import|url\(|[ ](style|src|on\w+)=", html)
    assert set(re.findall(r"https?://[^\s\"]*", html)) <= {"http://www.w3.org/2000/svg"}  # a namespace, which nobody fetches
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        (content,) = re.findall(f"<{tag}>(.*)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in content_security_policy()
        assert "<" + "!--" not in content
        assert f"</{tag}" not in content


def test_the_script_makes_no_markup_of_text() -> None:
    """Whatever turns a string into HTML or code is one hostile name away from harm."""
    script = (Path(landing.__file__).parent / "static/page.js").read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|DOMParser|srcdoc|href", script)


def test_page_is_accessible_in_its_structure() -> None:
    """Screen readers need a language, a title, headers of tables and one h1."""
    page = outline()
    assert ("lang", "en") in page.attributes
    assert ("scope", "row") in page.attributes
    assert page.tags.count("h1") == page.tags.count("title") == page.tags.count("main") == 1
    assert page.tags.count("caption") == page.tags.count("table") == 10
    assert page.tags.count("section") == 10


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [(45_266, 45_266, "100.0 %"), (45_256, 45_266, "99.9 %"), (2, 3, "66.7 %"), (0, 3, "0.0 %"), (0, 0, "0.0 %")],
)
def test_only_the_whole_is_100_percent(part: int, whole: int, shown: str) -> None:
    """100.0 % beside a part that is smaller than the whole contradicts itself."""
    assert percent(part, whole) == shown
