"""The flame graph of who starts what, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from exporter.model import comm_text
from exporter.records.hub import Hub
from tests.e2e.browser import PROGRAM, Tab
from tests.unit.pages import HOSTILE, Served, record, served
from tests.unit.snapshots import ordinary

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium or Chrome is installed")

FRAMES = "[...document.querySelectorAll('.flame [role=treeitem]')]"
DRAWN = f"{FRAMES}.length > 1"
NAMES = f"{FRAMES}.map((frame) => frame.textContent)"
FOCUS = "document.activeElement.textContent"
TABLE = "[...document.getElementById('lineage').tBodies[0].rows].map((row) => row.cells[0].textContent + ' ' + row.cells[1].textContent)"


@pytest.fixture
def hub() -> Hub:
    """A cron that starts a script with two programs, and a runner with one."""
    hub = Hub(1000)
    script = (b"systemd", b"cron", b"sh")
    hub.publish([record(number, b"true", lineage=script) for number in range(60)])
    hub.publish([record(number, b"grep", lineage=script, cpu_ns=9_000_000) for number in range(30)])
    hub.publish([record(number, b"sh", lineage=(b"systemd", b"cron")) for number in range(3)])
    hub.publish([record(number, b"cc1", lineage=(b"systemd", b"runner")) for number in range(7)])
    return hub


@pytest.fixture
def site(hub: Hub) -> Iterator[Served]:
    with served(ordinary(), hub) as site:
        yield site


def width(browser: Tab, name: str) -> float:
    """Its part of the width of the graph."""
    frame = f"{FRAMES}.find((frame) => frame.textContent === '{name}').getBoundingClientRect().width"
    return round(float(browser.eval(f"{frame} / document.querySelector('.flame').getBoundingClientRect().width")), 2)


def press(browser: Tab, *keys: str) -> None:
    for key in keys:
        browser.call("Input.dispatchKeyEvent", type="keyDown", key=key)
        browser.call("Input.dispatchKeyEvent", type="keyUp", key=key)


def test_widths(browser: Tab, site: Served) -> None:
    """By processes first; by CPU when that is chosen."""
    browser.open(f"{site.url}/")
    browser.wait_for(DRAWN)
    assert browser.eval(NAMES) == ["all", "systemd", "cron", "sh", "true", "grep", "runner", "cc1"]
    assert [width(browser, name) for name in ("all", "cron", "true", "cc1")] == [1.0, 0.93, 0.6, 0.07]
    browser.eval("(() => { const by = document.querySelector('select'); by.value = 'cpu'; by.dispatchEvent(new Event('change')); })()")
    browser.wait_for(f"{NAMES}.indexOf('grep') < {NAMES}.indexOf('true')")
    assert width(browser, "grep") == 0.93
    assert browser.said == []


def test_keys_and_zoom(browser: Tab, site: Served) -> None:
    """Everything works without a mouse, and the frame that has the focus says what it shows."""
    browser.open(f"{site.url}/?keys")
    browser.wait_for(DRAWN)
    browser.eval(f"{FRAMES}[0].focus()")
    press(browser, "ArrowDown", "ArrowDown", "ArrowRight")
    assert browser.eval(FOCUS) == "runner"
    assert browser.eval("document.activeElement.getAttribute('aria-label')").startswith(
        "runner: 7 processes, CPU 0.002 s, lifetime 0.006 s, 7.0 %"
    )
    press(browser, "Enter")
    assert browser.eval(NAMES) == ["all", "systemd", "runner", "cc1"]
    assert width(browser, "cc1") == 1.0
    assert browser.eval(FOCUS) == "runner"
    press(browser, "ArrowDown")
    assert browser.eval(FOCUS) == "cc1"
    press(browser, "Escape")
    assert (browser.eval(FOCUS), browser.eval(f"{FRAMES}.length")) == ("systemd", 8)
    browser.eval(f"{FRAMES}.find((frame) => frame.textContent === 'cron').click()")
    assert browser.eval(NAMES) == ["all", "systemd", "cron", "sh", "true", "grep"]
    assert browser.said == []


def test_new_processes_change_it_and_leave_zoom_and_focus(browser: Tab, site: Served, hub: Hub) -> None:
    """It is drawn again each few seconds and when the page is shown again, whatever somebody does meanwhile."""
    browser.open(f"{site.url}/?again")
    browser.wait_for(DRAWN)
    browser.eval(f"{FRAMES}.find((frame) => frame.textContent === 'cron').click()")
    hub.publish([record(1, b"new", lineage=(b"systemd", b"cron", b"sh"))] * 20)
    browser.eval("document.dispatchEvent(new Event('visibilitychange'))")
    browser.wait_for(f"{NAMES}.includes('new')")
    assert (browser.eval(NAMES)[:3], browser.eval(FOCUS)) == (["all", "systemd", "cron"], "cron")


def test_without_script_a_table(browser: Tab, site: Served) -> None:
    """It has all that the graph shows, in the form that flamegraph.pl reads."""
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(f"{site.url}/?without-script")
        assert browser.eval("document.querySelectorAll('.flame').length") == 0
        assert browser.eval(TABLE) == ["systemd;cron;sh;true 60", "systemd;cron;sh;grep 30", "systemd;runner;cc1 7", "systemd;cron;sh 3"]
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_hostile_names_are_text(browser: Tab, site: Served, hub: Hub) -> None:
    """Ancestors choose their names too."""
    for number, comm in enumerate(HOSTILE):
        hub.publish([record(number, comm, lineage=(comm,))] * 100)
    browser.open(f"{site.url}/?hostile")
    browser.wait_for(DRAWN)
    assert {comm_text(comm) for comm in HOSTILE} <= set(browser.eval(NAMES))
    assert browser.eval("document.querySelectorAll('.flame [role=treeitem] *, .flame script').length") == 0
    assert browser.said == []


def test_it_fits_a_phone(browser: Tab, site: Served) -> None:
    """The page does not scroll sideways."""
    browser.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    try:
        browser.open(f"{site.url}/?phone")
        browser.wait_for(DRAWN)
        assert browser.eval("document.documentElement.scrollWidth") <= 360
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")
