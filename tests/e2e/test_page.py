"""The page in a real browser."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.model import Outcome, comm_text
from exporter.model.dimensions import COMM
from exporter.records.hub import Hub
from exporter.supervision.completeness import Sample
from tests.e2e.browser import PROGRAM, Tab
from tests.unit.pages import HOSTILE, Served, record, served
from tests.unit.snapshots import ordinary

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium or Chrome is installed")

ROWS = "[...document.getElementById('recent').tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent))"
LIVE = "document.getElementById('live')?.textContent === 'Live.'"
PRESS = "document.getElementById('pause').click()"
WHY = "document.getElementById('why').textContent"
TABLE = "document.getElementById('comm-short_exits-60')"
COMMANDS = f"[...{TABLE}.tBodies[0].rows].map((row) => [row.cells[0].textContent, row.cells[1].textContent])"
SHOWN = (
    "[...document.getElementById('comm-short_exits-60').closest('section').querySelectorAll('caption')]"
    ".filter((each) => each.offsetHeight).map((each) => each.textContent)"
)
FOUND_BY_AXE = """axe.run().then(({ violations, passes }) =>
[violations.map(({ id, nodes }) => [id, nodes[0].html, nodes[0].failureSummary]), passes.length])"""
AXE = next(
    (Path(each) / "axe_playwright_python/axe.min.js" for each in sys.path if (Path(each) / "axe_playwright_python/axe.min.js").exists()),
    None,
)


@pytest.fixture
def hub() -> Hub:
    return Hub(1000)


@pytest.fixture
def site(hub: Hub) -> Iterator[Served]:
    with served(ordinary(), hub) as site:
        yield site


def test_a_record_appears_by_itself(browser: Tab, site: Served, hub: Hub) -> None:
    """On top of those that the page came with, and looking the same as after a reload."""
    hub.publish([record(1, b"before", Outcome.ERROR, 2)])
    browser.open(f"{site.url}/")
    browser.wait_for(LIVE)
    assert [row[1] for row in browser.eval(ROWS)] == ["before"]
    hub.publish([record(2, b"live", Outcome.SIGNAL, 15, cpu_ns=None), record(3, b"later", exe=b"")])
    browser.wait_for(f"{ROWS}.length === 3")
    live = browser.eval(ROWS)
    assert live[1] == ["22:13:20.002", "live", "SIGTERM", "0.812", "?", "build.service", "runner", "make", "1002", "/usr/bin/live"]
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(f"{site.url}/?without-script")
    assert browser.eval(ROWS) == live
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.said == []


def test_hostile_names_are_text(browser: Tab, site: Served, hub: Hub) -> None:
    """In what the server writes and in what the script adds."""
    hub.publish([record(number, comm, parent_comm=comm) for number, comm in enumerate(HOSTILE)])
    browser.open(f"{site.url}/")
    elements = "document.querySelectorAll('script, img, td *').length"
    browser.wait_for(LIVE)
    assert browser.eval(elements) == 1
    hub.publish([record(100 + number, comm, parent_comm=comm) for number, comm in enumerate(HOSTILE)])
    browser.wait_for(f"{ROWS}.length === {2 * len(HOSTILE)}")
    assert [row[1] for row in browser.eval(ROWS)] == 2 * [comm_text(comm) for comm in reversed(HOSTILE)]
    assert browser.eval(elements) == 1
    assert browser.said == []


def test_numbers_move(browser: Tab, site: Served, hub: Hub) -> None:
    """Mode, health and counts change on the open page, as a reload would show them."""
    browser.open(f"{site.url}/")
    browser.wait_for(LIVE)
    assert browser.eval("document.getElementById('state').className") == "state poor"
    more = ordinary()
    more.view.counts.total.buckets[5] += 1000
    more.view.rows[COMM][0][1].short_exits += 1000
    site.supervisor.change(view=more.view, last_minute=Sample(64, 64), why="It is better now.")
    site.pages._timeline.note(1000, {999: 5, 940: 500})
    browser.wait_for("document.getElementById('why').textContent === 'It is better now.'")
    main = "document.querySelector('main').innerText.replace(/^(Pause|Live\\.)$/gm, '').replace(/\\s+/g, ' ')"
    picture = "[...document.querySelectorAll('.bars')].map((each) => each.outerHTML.replace(/\\/>|><\\/\\w+>/g, '>')).join()"
    moved = browser.eval(main), browser.eval(picture)
    assert browser.eval("document.getElementById('state').className") == "state"
    browser.open(f"{site.url}/?again")
    browser.wait_for(LIVE)
    assert (browser.eval(main), browser.eval(picture)) == moved
    assert browser.said == []


def test_pause(browser: Tab, site: Served, hub: Hub) -> None:
    """What moves must be possible to hold still; going on catches up."""
    browser.open(f"{site.url}/")
    browser.wait_for(LIVE)
    browser.eval(PRESS)
    hub.publish([record(1, b"meanwhile")])
    browser.eval("new Promise((done) => setTimeout(done, 600))")
    assert browser.eval(ROWS) == [["None yet."]]
    browser.eval(PRESS)
    browser.wait_for(f"{LIVE} && {ROWS}[0][1] === 'meanwhile'")


def test_a_flood(browser: Tab, site: Served, hub: Hub) -> None:
    """A hundred rows at most, and a word on the others."""
    browser.open(f"{site.url}/")
    browser.wait_for(LIVE)
    for _ in range(40):
        hub.publish([record(number) for number in range(500)])
    browser.wait_for(f"{ROWS}.length > 50")
    assert browser.eval(f"{ROWS}.length") <= 100
    assert "Too many" in browser.eval("document.getElementById('live').textContent")


def test_it_fits_a_phone_and_the_keyboard(browser: Tab, site: Served, hub: Hub) -> None:
    """No sideways scrolling of the whole page; what scrolls by itself can be reached; how a process exited is seen without scrolling."""
    hub.publish([record(number, b"a-name-of-15-by", Outcome.SIGNAL, 11, exe=b"/" + b"x" * 255) for number in range(30)])
    browser.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    try:
        browser.open(f"{site.url}/")
        browser.wait_for(LIVE)
        assert browser.eval("document.documentElement.scrollWidth") <= 360
        scrolling = (
            "[...document.querySelectorAll('.wide')].filter((each) => each.closest('section > .wide') && each.tabIndex !== 0).length"
        )
        assert browser.eval(scrolling) == 0
        assert browser.eval("document.querySelector('#recent td:nth-child(3)').textContent") == "SIGSEGV"
        assert browser.eval("document.querySelector('#recent td:nth-child(3)').getBoundingClientRect().right") <= 360 - 16
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")


def test_strangers_see_totals_that_move(browser: Tab, site: Served, hub: Hub) -> None:
    """The browser asks under another name: no single process, no stream, and no error in the console; but all totals, kept current."""
    hub.publish([record(1, b"secret")])
    browser.open(f"{site.url.replace('127.0.0.1', 'host.localhost')}/")
    browser.wait_for(LIVE)
    assert browser.eval("document.querySelectorAll('#recent, #lineage').length") == 0
    assert "secret" not in browser.eval("document.body.innerText")
    assert browser.eval(COMMANDS)[0] == ["cc1", "40"]
    site.supervisor.change(why="It is better now.")
    browser.wait_for("document.getElementById('why').textContent === 'It is better now.'")
    browser.eval(PRESS)
    site.supervisor.change(why="It was held back.")
    assert browser.eval(WHY) == "It is better now."
    browser.eval(PRESS)
    browser.wait_for(f"{WHY} === 'It was held back.'")
    assert browser.said == []


def test_periods_without_script(browser: Tab, site: Served) -> None:
    """The last minute first; the others by a click. Each panel shows one of its tables at a time."""
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(f"{site.url}/?periods")
        assert browser.eval(SHOWN) == ["Last minute"]
        for period, caption in (("300", "Last 5 minutes"), ("start", "Since the exporter started"), ("60", "Last minute")):
            browser.eval(f"document.getElementById('period-{period}').click()")
            assert browser.eval(SHOWN) == [caption]
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_sorting_and_filtering_stay(browser: Tab, site: Served, hub: Hub) -> None:
    """New data come in the order and with the filter that somebody chose."""
    hub.publish([record(number, comm) for number, comm in enumerate((b"make", b"cc1", b"as"))])
    browser.open(f"{site.url}/?sorting")
    browser.wait_for(LIVE)
    assert browser.eval(COMMANDS)[:2] == [["cc1", "40"], ["sh", "3"]]
    browser.eval(f"{TABLE}.querySelector('th .sort').click()")
    assert [name for name, _ in browser.eval(COMMANDS)][1:] == ["cc1", "sh", "sleep"]
    assert browser.eval(f"{TABLE}.querySelector('th').getAttribute('aria-sort')") == "ascending"
    browser.eval(f"{TABLE}.querySelectorAll('th .sort')[1].click()")
    assert [short for _, short in browser.eval(COMMANDS)] == ["40", "3", "1", "1"]
    browser.eval("(() => { const box = document.getElementById('filter'); box.value = ' CC'; box.dispatchEvent(new Event('input')); })()")
    assert browser.eval(COMMANDS) == [["cc1", "40"]]
    assert [row[1] for row in browser.eval(ROWS)] == ["cc1"]
    hub.publish([record(4, b"ld"), record(5, b"gcc")])
    browser.wait_for(f"{ROWS}.length === 2")
    site.supervisor.change(why="It is better now.")
    browser.wait_for(f"{WHY} === 'It is better now.'")
    assert browser.eval(COMMANDS) == [["cc1", "40"]]
    assert browser.eval("document.getElementById('user-short_exits-60')?.textContent.includes('None matches') ?? true")
    assert browser.said == []


def test_a_query_is_copied(browser: Tab, site: Served) -> None:
    """By a button, also where a browser has no clipboard for pages: over plain HTTP from another host."""
    for host in ("127.0.0.1", "host.localhost"):
        browser.open(f"{site.url.replace('127.0.0.1', host)}/?copy")
        browser.wait_for(LIVE)
        browser.call("Runtime.evaluate", expression="navigator.clipboard.writeText = async (text) => { window.copied = text; }")
        browser.eval("document.querySelector('.query').open = true; document.querySelector('.query button').click()")
        browser.wait_for("document.querySelector('.query button').textContent === 'Copied'")
        assert browser.eval("window.copied") == "rate(shortproc_ended_short_processes_total[1m])"


@pytest.mark.skipif(AXE is None, reason="axe is not installed")
@pytest.mark.parametrize("scene", ["desktop", "dark, for strangers", "phone"])
def test_accessibility(browser: Tab, site: Served, hub: Hub, scene: str) -> None:
    """Neither in names, contrast and landmarks nor in what scrolls does axe find a violation; also with everything unfolded."""
    width, scheme = 360 if scene == "phone" else 1600, "dark" if "dark" in scene else "light"
    assert AXE is not None
    hub.publish([record(number, lineage=(b"systemd", b"cron")) for number in range(40)])
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 800)
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    try:
        browser.open(f"{site.url.replace('127.0.0.1', 'host.localhost') if 'strangers' in scene else site.url}/?axe")
        browser.wait_for(LIVE)
        browser.eval("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        browser.eval(PRESS)
        browser.call("Runtime.evaluate", expression=AXE.read_text())
        violations, passes = browser.eval(FOUND_BY_AXE)
        assert violations == []
        assert passes > 20
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")
        browser.call("Emulation.setEmulatedMedia", features=[])
