"""The pictures of the dashboards can be drawn: each type of panel, with each unit and colour that one has."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from tests.e2e.fleet.charts import Axes, Band, Mark, Series, Span, chart, shown
from tests.e2e.fleet.panels import Panel, Scene, draw
from tests.unit.test_dashboard_files import PANELS

START, STEP = 1_700_000_000, 2
SCENE = Scene(START, START + 60, STEP, [Mark(START + 10, START + 20, "#f00")], {})
HISTOGRAM = {"count": "3", "sum": "1", "buckets": [[0, "0.001", "0.002", "1"], [0, "0.002", "0.004", "2"]]}


SIGN = {"timeseries": "a &lt; b", "state-timeline": "a &lt; b", "table": "a &lt; b", "stat": "</b>", "heatmap": "<rect"}
"""What must be in a panel of this type."""


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_each_panel_can_be_drawn(panel: dict[str, Any]) -> None:
    """A type, unit, colour or override that the drawing does not know must not be found out after five minutes."""
    value: Any = HISTOGRAM if panel["type"] == "heatmap" else 1.0
    points = [(START + STEP * number, value) for number in range(5)]
    labels = dict.fromkeys(("instance", "job", "owner", "comm"), "a < b")
    drawn = draw(Panel(panel), [Series("a < b", target["refId"], labels, points) for target in panel["targets"]], SCENE)
    assert SIGN[panel["type"]] in drawn
    assert "a < b" not in drawn


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1234, "count:/s", "1.23K /s"),
        (0.5, "percentunit", "50%"),
        (0.00042, "s", "420 µs"),
        (0, "s", "0 s"),
        (3 * 2**20, "bytes", "3 MiB"),
        (4.04, "suffix: times usual", "4.04 times usual"),
        (100, "short", "100"),
        (0.04, "count:cores", "0.04 cores"),
    ],
)
def test_numbers_are_shown_with_their_units(value: float, unit: str, text: str) -> None:
    """A figure off by a prefix would make the pictures lie."""
    assert shown(value, unit) == text


def test_a_chart_is_well_formed_and_to_scale() -> None:
    """Values from others are in it, and a line must be where its axis says."""
    axes = Axes(400, 200, START, START + 60, 0, 10)
    spans, marks = [Span(START, START + 50, 2, 4, "#0f0", 0.5, "<a>")], SCENE.marks
    picture = ET.fromstring(chart(axes, axes.ticks("count:/s"), [Band("#00f", 0.1, [(START, 0, 5), (START + 60, 0, 10)])], spans, marks))
    assert {each.text for each in picture.iter("text")} >= {"<a>", "0 /s", "10 /s"}
    line = next(each.attrib["d"] for each in picture.iter("path") if each.get("stroke") == "#00f")
    heights = [float(point.partition(",")[2]) for point in line[1:].split("L")]
    assert heights == pytest.approx([axes.y(5), axes.y(10)])
    assert axes.y(5) - axes.y(10) == pytest.approx(axes.y(0) - axes.y(5))
