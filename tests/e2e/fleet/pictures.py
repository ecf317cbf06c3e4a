"""`make pictures` draws the dashboards in docs/images, from what a real Prometheus answers to their queries after an incident."""

from __future__ import annotations

import io
import json
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from exporter.kernel.cgroups import hierarchy
from exporter.loaders.core import refusal
from tests.e2e.browser import PROGRAM, Tab, tab
from tests.e2e.fleet.charts import Mark, Series
from tests.e2e.fleet.incident import BEST, SHOWN, incident
from tests.e2e.fleet.panels import CELL, GAP, WIDTH, Panel, Scene, colour, draw, runs
from tests.e2e.fleet.scraped import JOB, Asked, Fleet, Window

_ROOT = Path(__file__).parents[3]
_CHOSEN = {"shortproc-fleet": (".+", "All"), "shortproc-host": (BEST, BEST)}
"""Of the variable for the host: as queries want it, and as the page shows it."""
_SHADES = 255
"""A third of the bytes, and no difference to be seen."""
_STYLE = (Path(__file__).parent / "pictures.css").read_text()


def main() -> str | None:
    """Write the pictures, or return why not."""
    if PROGRAM is None:
        return "no Chromium or Chrome is installed"
    if os.geteuid() != 0 or (reason := refusal()) is not None:
        return f"needs root and eBPF: {reason if os.geteuid() == 0 else 'not root'}"
    if not hierarchy().root:
        return "no hierarchy of cgroups is mounted"
    with tempfile.TemporaryDirectory(prefix="shortproc-pictures-") as name:
        folder = Path(name)
        with incident(folder) as fleet:
            pages = list(drawn(fleet, SHOWN._replace(end=time.time())))
        with tab(folder / "browser") as browser:
            for uid, page in pages:
                (folder / f"{uid}.html").write_text(page)
                picture = Image.open(io.BytesIO(photographed(browser, folder / f"{uid}.html"))).convert("RGB")
                picture.quantize(_SHADES).save(_ROOT / f"docs/images/{uid}.png", optimize=True)
    return None


def drawn(fleet: Fleet, window: Window) -> Iterator[tuple[str, str]]:
    """The name and the HTML of each."""
    for uid, (instance, shown) in _CHOSEN.items():
        page = json.loads((_ROOT / f"grafana/{uid}.json").read_text())
        scene = Scene(window.end - window.seconds, window.end, window.step, list(_marks(fleet, page, instance, window)), {})
        body = [_heading(page, shown, scene)]
        for panel in map(Panel, page["panels"]):
            at = panel.json["gridPos"]
            place = f'style="grid-area: {at["y"] + 1} / {at["x"] + 1} / span {at["h"]} / span {at["w"]}"'
            if panel.json["type"] == "row":
                body.append(f"<h2 {place}>{escape(panel.json['title'])}</h2>")
                continue
            inside = draw(panel, _answers(fleet, panel, instance, window), scene)
            body.append(f"<section {place}><h3>{escape(panel.json['title'])}</h3>{inside}</section>")
        sizes = f":root {{ --width: {WIDTH}px; --cell: {CELL}px; --gap: {GAP}px; }}"
        yield uid, f'<!doctype html><meta charset="utf-8"><style>{sizes}{_STYLE}</style>{body[0]}<main>{"".join(body[1:])}</main>'


def photographed(browser: Tab, page: Path) -> bytes:
    """All of it, however high."""
    browser.call("Emulation.setDeviceMetricsOverride", width=WIDTH, height=900, deviceScaleFactor=1, mobile=False)
    browser.open(page.as_uri())
    height = browser.eval("document.documentElement.scrollHeight")
    return browser.picture(captureBeyondViewport=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": height, "scale": 1})


def _answers(fleet: Fleet, panel: Panel, instance: str, window: Window) -> Sequence[Series]:
    found = []
    for target in panel.json["targets"]:
        asked = Asked("", panel.json["title"], target["expr"], target.get("instant", False))
        for one in fleet.ask(asked, instance, window):
            name = _filled(target.get("legendFormat", ""), one["metric"])
            points = [(float(at), value if isinstance(value, dict) else float(value)) for at, value in one["values"]]
            numbers = [(at, value) for at, value in points if isinstance(value, dict) or math.isfinite(value)]
            found.append(Series(name, target["refId"], one["metric"], numbers))
    return found


def _filled(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda label: labels.get(label[1], ""), legend)


def _marks(fleet: Fleet, page: Mapping[str, Any], instance: str, window: Window) -> Iterator[Mark]:
    """As Grafana: one for each time without a gap."""
    for annotation in page["annotations"]["list"]:
        for one in fleet.ask(Asked("", annotation["name"], annotation["expr"], instant=False), instance, window):
            for run in runs([(float(at), float(value)) for at, value in one["values"]], window.step):
                yield Mark(run[0][0], run[-1][0], colour(annotation["iconColor"]))


def _heading(page: Mapping[str, Any], instance: str, scene: Scene) -> str:
    values = {"Job": JOB, "Host": instance, "Command name": "All", "Owner": "All"}
    chosen = "".join(f"<span>{name} <b>{value}</b></span>" for name, value in values.items())
    begin, end = (time.strftime("%H:%M:%S", time.gmtime(at)) for at in (scene.start, scene.end))
    return f'<header><h1>{escape(page["title"])}</h1>{chosen}<span class="time">{begin} to {end} UTC</span></header>'


if __name__ == "__main__":
    sys.exit(main())
