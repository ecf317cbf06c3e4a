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

from exporter.model import NS, Lost, Outcome
from exporter.model.counts import ProcessCounts
from exporter.model.dimensions import COMM
from exporter.model.series import Row
from exporter.supervision.completeness import Sample
from exporter.web import landing
from exporter.web.charts import Histogram, TimelineCharts
from exporter.web.landing import PageStatus, changes, content_security_policy, render
from exporter.web.parts import duration, percent
from exporter.web.rankings import PERIODS, panels
from exporter.web.timeline import Seconds
from tests.unit.pages import record, standing


def row(name: str, short: int, ended: int, cpu_seconds: float, short_cpu_seconds: float) -> Row:
    """What a command did."""
    times = round(cpu_seconds * NS), round(short_cpu_seconds * NS)
    return Row((name,), ProcessCounts([ended, 0, 0, 0], short, 0, 0, *times), 0)


NAMED = [row("sh", 812_333, 814_001, 1023.4442, 997.5), row("tiny", 1, 2, 0.00001, 0.0), row("cc1", 77, 78, 4000.5, 3999.25)]
OVERFLOWED = [row("gcc", 122, 122, 1, 1)]
SECONDS = Seconds(5000, [None] * 800 + [10] * 94 + [0, 500, 0, 0, 20, 10])
STATUS = PageStatus(
    version="0.1.0",
    revision="abc1234",
    host="web-1",
    mode="ebpf_core",
    why="It is the best mode.",
    modes=(("ebpf_core", "active", "attached"), ("netlink", "usable", "answers")),
    last_minute=Sample(72_940, 72_940),
    capture_limit=0.99,
    threshold_seconds=1.0,
    started=1_700_000_000.5,
    ended_processes=1_284_551,
    short_processes=1_280_412,
    rates=(1234.4, 12.34, None),
    peak_per_second=2114,
    timeline=TimelineCharts(SECONDS, 1_700_000_000 - 5000),
    bounds_seconds=(0.0001, 0.01, 1.0, 60.0),
    buckets=(1, 700, 299, 0, 0),
    rankings=tuple(panels({COMM: standing(NAMED, OVERFLOWED)})),
    lost=(("overrun", 7),),
    incomplete=(("cpu_never_came", 48, "CPU time"),),
)
RECORDS = [record(2, b"gone", Outcome.SIGNAL, 9), record(1, b"bad", Outcome.ERROR, 3), record(0, b"well", cpu_ns=None, exe=b"")]
VOID = {"meta", "rect", "link", "br", "input"}


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


def outline(status: PageStatus = STATUS, path: str = "/metrics", records: bool = True) -> Outline:
    page = Outline(render(status, path, RECORDS if records else None))
    assert not page.open
    return page


def test_shows_what_a_person_asks_first() -> None:
    """How many, how complete, which mode, who, on which host, where the metrics are."""
    page = outline()
    for part in (
        "web-1 - shortproc-exporter",
        "Mode ebpf_core.",
        "It is the best mode.",
        "Complete: all 72,940 new processes",
        "1,280,412",
        "99.7 % of 1,284,551 exits",
        "2,114 /s",
        "less than 1 s",
    ):
        assert part in page.text
    for part in ("sh", "812,333", "1,023.444", "< 0.001", "gcc", "122", "netlink", "2023-11-14 22:13:20", "abc1234"):
        assert part in page.text
    for part in ("1,234 /s", "12.3 /s", "last 5 min: ?", "3,999.250"):
        assert part in page.text
    assert "Busiest commandsh812,333 short" in page.text
    assert ("href", "/metrics") in page.attributes


def test_a_burst_of_ten_seconds_ago() -> None:
    """Its second stands out, in both charts, with its time; what was not observed is not drawn as quiet."""
    minute, quarter = STATUS.timeline.bars()
    assert minute.live()[-6:] == [0, 90, 0, 0, 4, 2]
    assert quarter.live()[-3:] == [2, 2, 11]
    assert quarter.live()[:2] == [None, None]
    assert len(quarter.live()) == 180
    assert STATUS.timeline.texts()["minute-most"] == "Last minute, each second. Most: 500 at 22:13:15 UTC."
    by_second, by_minute = outline().rows["seconds"], outline().rows["minutes"]
    assert by_second[1:7] == [
        ["22:13:19", "10"],
        ["22:13:18", "20"],
        ["22:13:17", "0"],
        ["22:13:16", "0"],
        ["22:13:15", "500"],
        ["22:13:14", "0"],
    ]
    assert by_minute[1] == ["22:13:00", "670", "500"]


def test_totals_by_name_are_for_all_and_single_processes_are_not() -> None:
    """A stranger sees what `/metrics` shows; no command that ran a moment ago, and how to see it."""
    page = outline(records=False)
    for period in PERIODS:
        assert [cells[:2] for cells in page.rows[f"comm-short_exits-{period.key}"][1:3]] == [["sh", "812,333"], ["gcc", "122"]]
    assert "gone" not in page.text.split()
    assert "recent" not in page.rows
    assert "web.public_records: true" in page.text
    assert "http://localhost" in page.text


@pytest.mark.parametrize(
    ("clones", "words", "poor"),
    [
        (Sample(72_940, 72_915), "25 of 72,940 new processes and threads of the last 60 s were missed (99.9 % observed).", False),
        (Sample(100, 99), "1 of 100 new", False),
        (Sample(1000, 989), "11 of 1,000 new processes and threads of the last 60 s were missed (98.9 % observed). All counts", True),
        (Sample(10, 0), "(0.0 % observed). All counts are too low.", True),
        (Sample(0, 0), "Complete: all 0 new", False),
        (None, "Completeness is unknown", False),
    ],
)
def test_incompleteness_is_said(clones: Sample | None, words: str, poor: bool) -> None:
    """With numbers, and never rounded up to complete; it is poor from where an alert fires, as an orange page is one."""
    status = dataclasses.replace(STATUS, last_minute=clones)
    text = outline(status).text
    assert words in text
    assert ("Complete:" in text) == (clones is not None and clones.ratio == 1)
    assert changes(status)["poor"] is poor


def test_a_missing_detail_is_no_lost_event() -> None:
    """A process whose CPU time never came was counted."""
    page = outline()
    assert page.rows["lost"][1:] == [["overrun", "7"]]
    assert page.rows["incomplete"][1:] == [["cpu_never_came", "48", "CPU time"]]
    details = {"name_busy", "cpu_marks_full", "cpu_never_came", "exes_full", "origins_full", "name_race"}
    assert {reason for reason in Lost if reason.detail} == details


def test_degraded_and_inactive_modes_are_said() -> None:
    """Colour alone tells nothing to many."""
    assert "Mode scan, degraded." in outline(dataclasses.replace(STATUS, mode="scan", degraded=True)).text
    assert "No mode is active. It is the best mode." in outline(dataclasses.replace(STATUS, mode=None)).text


def test_a_host_where_nothing_happened_yet() -> None:
    """The first look comes a second after the start."""
    empty = dataclasses.replace(STATUS, ended_processes=0, short_processes=0, peak_per_second=None, buckets=(), lost=(), incomplete=())
    nobody = TimelineCharts(Seconds(0, [None] * 900), 0)
    empty = dataclasses.replace(empty, timeline=nobody, rankings=tuple(panels({COMM: standing([], [])})))
    text = Outline(render(empty, "/metrics", [])).text
    assert "no exits yet" in text
    assert "unknown in this mode" in text
    assert text.count("None so far.") == 2
    assert text.count("None yet.") == 13  # recent, three rankings of three periods, minutes, both kinds of losses


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
    fixed = {"state", "recent", "controls", "period-60", "period-300", "period-start"}
    assert set(event["texts"]) | set(event["tables"]) | set(event["charts"]) | fixed == ids
    for key, table in event["tables"].items():
        assert [list(row) for row in table["rows"]] or page.rows[key][1:] == [["None yet."]]


def test_histogram() -> None:
    """What happened at all must be seen, and the numbers be there for those who see no picture."""
    histogram = Histogram(STATUS.bounds_seconds, STATUS.buckets, STATUS.threshold_seconds)
    assert histogram.bars().live() == [1, 140, 60, 0, 0]
    assert histogram.numbers().rows[:2] == [("up to 0.1 ms", "1", "0.1 %"), ("up to 10 ms", "700", "70.0 %")]
    assert histogram.section().count('class="marked"') == 3
    assert [duration(seconds) for seconds in (0.00025, 0.5, 1, 90, 300, 3600)] == ["0.25 ms", "500 ms", "1 s", "90 s", "5 min", "1 h"]


@pytest.fixture(scope="module")
def harmless() -> Outline:
    one = tuple(panels({COMM: standing([row("sh", 1, 1, 1.0, 1.0)])}))
    return outline(dataclasses.replace(STATUS, modes=(("a", "b", "c"),), rankings=one, lost=(("a", 1),), incomplete=(("a", 1, "b"),)))


@given(hostile=st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).map(lambda text: f"<script src=//evil>'\"&{text}"))
def test_nothing_becomes_markup(harmless: Outline, hostile: str) -> None:
    """A comm is chosen by whoever runs the process."""
    status = dataclasses.replace(
        STATUS,
        version=hostile,
        host=hostile,
        revision=hostile,
        mode=hostile,
        why=hostile,
        modes=((hostile, hostile, hostile),),
        rankings=tuple(panels({COMM: standing([row(hostile, 1, 1, 1.0, 1.0)])})),
        lost=((hostile, 1),),
        incomplete=((hostile, 1, hostile),),
    )
    comm = hostile.encode()
    records = [record(number, comm, parent_comm=comm, exe=comm, cgroup=comm) for number in range(3)]
    page = Outline(render(status, f"/{hostile}", records))
    assert page.tags.count("script") == 1
    assert len(page.tags) == len(harmless.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in {"style", "src"}]


def test_page_is_self_contained_and_its_policy_fits() -> None:
    """Monitoring hosts have no way to the Internet; a policy whose hash is stale would show the page bare."""
    html = render(STATUS, "/metrics", RECORDS)
    assert re.findall("<link[^>]*", html) == ['<link rel="icon" href="favicon.svg" type="image/svg+xml"']
    assert not re.search(r"<img|@import|url\(|[ ](style|src|on\w+)=", html)
    assert set(re.findall(r"https?://[^\s\"]*", html)) <= {"http://www.w3.org/2000/svg"}  # a namespace, which nobody fetches
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        (content,) = re.findall(f"<{tag}>(.*)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in content_security_policy()
        assert "<" + "!--" not in content
        assert f"</{tag}" not in content


def test_the_script_makes_no_markup_of_text() -> None:
    """Whatever turns a string into HTML or code is one hostile name away from harm."""
    script = "".join(file.read_text() for file in (Path(landing.__file__).parent / "static").glob("*.js"))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|DOMParser|srcdoc|href", script)


def test_page_is_accessible_in_its_structure() -> None:
    """Screen readers need a language, a title, headers of tables and one h1."""
    page = outline()
    assert ("lang", "en") in page.attributes
    assert ("scope", "row") in page.attributes
    assert page.tags.count("h1") == page.tags.count("title") == page.tags.count("main") == 1
    assert page.tags.count("caption") == page.tags.count("table") == 16
    assert page.tags.count("section") == page.tags.count("h2") - 1 == 9


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [(45_266, 45_266, "100.0 %"), (45_256, 45_266, "99.9 %"), (2, 3, "66.7 %"), (0, 3, "0.0 %"), (0, 0, "0.0 %")],
)
def test_only_the_whole_is_100_percent(part: int, whole: int, shown: str) -> None:
    """100.0 % beside a part that is smaller than the whole contradicts itself."""
    assert percent(part, whole) == shown
