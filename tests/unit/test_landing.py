from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.web.landing import CONTENT_SECURITY_POLICY, Row, Status, render

STATUS = Status(
    version="0.1.0",
    revision="abc1234",
    mode="ebpf_core",
    why="It is the best mode.",
    rungs=(("ebpf_core", "active", "attached"), ("netlink", "usable", "answers")),
    capture_ratio=1.0,
    threshold_seconds=1.0,
    uptime_seconds=93_784.5,
    ended_processes=1_284_551,
    short_processes=1_280_412,
    peak_per_second=2114,
    top_comms=(Row("sh", 812_333, 814_001, 1023.4442), Row("tiny", 1, 2, 0.00001)),
    folded=(("gcc", 122),),
    lost=(("unseen", 0), ("cpu_never_came", 48)),
)
VOID = {"meta", "rect", "link", "br"}


class Outline(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def outline(status: Status = STATUS, path: str = "/metrics", names: bool = True) -> Outline:
    page = Outline(render(status, path, names))
    assert not page.open
    return page


def test_shows_what_a_person_asks_first() -> None:
    """How many, how complete, which mode, where the metrics are."""
    page = outline()
    for part in ("Mode ebpf_core.", "It is the best mode.", "Nothing was missed", "1,280,412", "99.7 %", "1,284,551", "2,114 /s", "< 1 s"):
        assert part in page.text
    for part in ("sh", "812,333", "1,023.444", "< 0.001", "gcc", "122", "cpu_never_came", "48", "netlink", "up 1 d 2 h", "abc1234"):
        assert part in page.text
    assert "unseen" not in page.text  # nothing was lost by it
    assert ("href", "/metrics") in page.attributes


def test_names_are_hidden_with_a_reason() -> None:
    """A stranger must not learn what runs here, and an operator must learn what to do about it."""
    page = outline(names=False)
    assert not {"sh", "tiny", "gcc", "812,333"} & set(page.text.split())
    assert "web.public_records: true" in page.text
    assert "http://localhost" in page.text


@pytest.mark.parametrize(
    ("ratio", "words"), [(0.87349, "it saw 87.3 %"), (0.99999, "it saw 99.9 %"), (0.0, "it saw 0.0 %"), (None, "can't be told")]
)
def test_incompleteness_is_said(ratio: float | None, words: str) -> None:
    """Never round up to complete."""
    text = outline(dataclasses.replace(STATUS, capture_ratio=ratio)).text
    assert words in text
    assert "Nothing was missed" not in text


def test_degraded_and_inactive_modes_are_said() -> None:
    """Colour alone tells nothing to many."""
    assert "Mode scan, degraded." in outline(dataclasses.replace(STATUS, mode="scan", degraded=True)).text
    assert "No mode is active. It is the best mode." in outline(dataclasses.replace(STATUS, mode=None)).text


def test_a_host_where_nothing_happened_yet() -> None:
    """The first look comes a second after the start."""
    empty = dataclasses.replace(
        STATUS, ended_processes=0, short_processes=0, peak_per_second=None, top_comms=(), folded=(), lost=(), rungs=()
    )
    text = outline(dataclasses.replace(empty, uptime_seconds=1.2)).text
    assert "none ended yet" in text
    assert "unknown in this mode" in text
    assert "up 0 min 1 s" in text


@given(hostile=st.text(min_size=1, max_size=30).map(lambda text: f"<script src=//evil>'\"&{text}"))
def test_nothing_becomes_markup(hostile: str) -> None:
    """A comm is chosen by whoever runs the process."""
    status = dataclasses.replace(
        STATUS,
        version=hostile,
        revision=hostile,
        mode=hostile,
        why=hostile,
        rungs=((hostile, hostile, hostile),),
        top_comms=(Row(hostile, 1, 1, 1.0),),
        folded=((hostile, 1),),
        lost=((hostile, 1),),
    )
    plain = dataclasses.replace(STATUS, rungs=(("a", "b", "c"),), top_comms=STATUS.top_comms[:1], lost=(("a", 1),))
    page = outline(status, f"/{hostile}")
    assert "script" not in page.tags
    assert len(page.tags) in {len(outline(plain).tags), len(outline(plain).tags) + 1}  # the active rung has a span
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in {"style", "src"}]


def test_page_is_self_contained_and_its_policy_fits() -> None:
    """Monitoring hosts have no way to the Internet; a policy whose hash is stale would show the page bare."""
    html = render(STATUS, "/metrics", names=True)
    assert not re.search(r"<script|<link|<img|@import|url\(|style=|https?://", html)
    style = re.search(r"<style>(.*)</style>", html, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in CONTENT_SECURITY_POLICY


def test_page_is_accessible_in_its_structure() -> None:
    """Screen readers need a language, a title, headers of tables and one h1."""
    page = outline()
    assert ("lang", "en") in page.attributes
    assert ("scope", "row") in page.attributes
    assert page.tags.count("h1") == page.tags.count("title") == page.tags.count("main") == 1
    assert page.tags.count("caption") == page.tags.count("table") == 4
