"""The page in a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from exporter.model import Outcome, comm_text
from exporter.model.dimensions import COMM
from exporter.records.hub import Hub
from tests.e2e.browser import PROGRAM, Tab
from tests.unit.pages import HOSTILE, Served, record, served
from tests.unit.snapshots import ordinary

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium or Chrome is installed")

ROWS = "[...document.getElementById('recent').tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent))"
LIVE = "document.getElementById('live')?.textContent === 'Live.'"
PRESS = "document.querySelector('button').click()"


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
    site.supervisor.change(view=more.view, capture_ratio=1.0, why="It is better now.")
    browser.wait_for("document.getElementById('why').textContent === 'It is better now.'")
    main = "document.querySelector('main').innerText.replace(/^(Pause|Live\\.)$/gm, '').replace(/\\s+/g, ' ')"
    picture = "document.getElementById('histogram').outerHTML.replace(/\\/>|><\\/\\w+>/g, '>')"
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


def test_strangers_get_no_script(browser: Tab, site: Served, hub: Hub) -> None:
    """The browser asks under another name: no names, no stream, and no error in the console."""
    hub.publish([record(1, b"secret")])
    browser.open(f"{site.url.replace('127.0.0.1', 'host.localhost')}/")
    assert browser.eval("document.querySelectorAll('script, #recent').length") == 0
    assert "secret" not in browser.eval("document.body.innerText")
    assert browser.said == []
