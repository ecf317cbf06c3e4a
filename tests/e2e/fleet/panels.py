"""Draws the panels of a dashboard as HTML, roughly as Grafana does."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any, NamedTuple

from tests.e2e.fleet.charts import Axes, Band, Mark, Series, Span, chart, round_up, shown

WIDTH, CELL, GAP = 1440, 30, 8
"""Of the page, and of Grafana's grid of 24 columns."""
_COLOURS = {
    "green": "#73bf69", "dark-green": "#37872d", "blue": "#5794f2", "orange": "#ff9830", "red": "#f2495c", "purple": "#b877d9",
}  # fmt: skip
_HEAT = "#ff9830"
_HEAD, _ROW, _TABLE_ROW = 34, 19, 30


class Scene(NamedTuple):
    """What all panels of a page share."""

    start: float
    end: float
    step: float
    marks: Sequence[Mark]
    colours: dict[str, str]
    """By name. Each new one is far on the colour wheel from the one before."""

    def axes(self, panel: Panel, low: float, high: float, below: int = 0, *, is_log: bool = False) -> Axes:
        """Those of a picture that fills the panel, except for so many pixels below."""
        return Axes(panel.width - 2 * GAP, panel.height - _HEAD - GAP - below, self.start, self.end, low, high, is_log)


class Panel(NamedTuple):
    """One of a dashboard, as committed."""

    json: Mapping[str, Any]

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.json["gridPos"]["w"]) * (WIDTH - GAP) // 24 - GAP

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.json["gridPos"]["h"]) * (CELL + GAP) - GAP

    def field(self, name: str, query: str = "") -> dict[str, Any]:
        """How to show a series or column, with all that overrides the rest."""
        field = dict(self.json["fieldConfig"]["defaults"])
        for override in self.json["fieldConfig"]["overrides"]:
            matcher, wanted = override["matcher"]["id"], override["matcher"]["options"]
            if {"byName": wanted == name, "byRegexp": bool(re.fullmatch(wanted, name)), "byFrameRefID": wanted == query}[matcher]:
                field |= {each["id"]: each["value"] for each in override["properties"]}
        return field


def colour(name: str) -> str:
    """Of one of Grafana's names, or as CSS has it."""
    return name if name.startswith("#") else _COLOURS[name]


def _mapped(field: Mapping[str, Any], value: float) -> Mapping[str, Any]:
    found: Mapping[str, Any] = {}
    for mapping in field.get("mappings", ()):
        found = mapping["options"].get(f"{value:g}", found)
    return found


def _text(field: Mapping[str, Any], value: float) -> str:
    return str(_mapped(field, value).get("text") or shown(value, field["unit"], field.get("decimals")))


def _colour_of(field: Mapping[str, Any], value: float, otherwise: str = "") -> str:
    if mapped := _mapped(field, value):
        return colour(mapped["color"])
    how = field.get("color", {})
    if how.get("mode") == "fixed":
        return colour(how["fixedColor"])
    if how.get("mode") == "thresholds":
        steps = field.get("thresholds", {}).get("steps", ({"value": None, "color": "green"},))
        return colour([step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1])
    return otherwise


def draw(panel: Panel, series: Sequence[Series], scene: Scene) -> str:
    """What is below the title of a panel."""
    return _DRAWN[panel.json["type"]](panel, series, scene) if series else _nothing(panel)


def _nothing(panel: Panel) -> str:
    return f'<div class="none">{escape(panel.json["fieldConfig"]["defaults"].get("noValue", "No data"))}</div>'


def _stat(panel: Panel, series: Sequence[Series], scene: Scene) -> str:
    options, tiles = panel.json["options"], []
    is_filled, named = options["colorMode"] == "background", options["textMode"] == "value_and_name" or len(series) > 1
    for each in series:
        field = panel.field(each.name, each.query)
        tint, text = _colour_of(field, each.last), _text(field, each.last)
        size = min(38, 1.4 * (panel.width / len(series) - 4 * GAP) / len(text))
        style = f"{'background' if is_filled else 'color'}: {tint}"
        name = f"<p>{escape(each.name)}</p>" if named else ""
        spark = _spark(each, tint, scene) if options["graphMode"] == "area" else ""
        kind = "filled" if is_filled else "plain"
        tiles.append(f'<div class="tile {kind}" style="{style}">{spark}{name}<b style="font-size: {size:.0f}px">{escape(text)}</b></div>')
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _spark(each: Series, tint: str, scene: Scene) -> str:
    most = max(value for _, value in each.points) or 1
    places = [(100 * (at - scene.start) / (scene.end - scene.start), 30 - 28 * value / most) for at, value in each.points]
    line = "L".join(f"{x:.1f},{y:.1f}" for x, y in places)
    area = f'<path fill="{tint}" fill-opacity=".25" d="M{places[0][0]:.1f},30L{line}L{places[-1][0]:.1f},30Z"/>'
    return f'<svg class="spark" viewBox="0 0 100 30" preserveAspectRatio="none">{area}</svg>'


def _timeseries(panel: Panel, series: Sequence[Series], scene: Scene) -> str:
    defaults = panel.json["fieldConfig"]["defaults"]
    custom, unit = defaults["custom"], defaults["unit"]
    is_log, is_stacked = custom.get("scaleDistribution", {}).get("type") == "log", "stacking" in custom
    values = [value for each in series for _, value in each.points]
    low = min((value for value in values if value > 0), default=0.1) / 1.5 if is_log else 0.0
    bases = dict.fromkeys([at for each in series for at, _ in each.points], low)
    tints, bands = {}, []
    series = sorted(series, key=lambda each: max(value for _, value in each.points), reverse=True)  # as the legend
    for each in series:
        tints[each.name] = _colour_of(panel.field(each.name, each.query), each.last, _of_name(each.name, scene))
        for run in runs(each.points, scene.step):
            bands.append(
                Band(tints[each.name], custom["fillOpacity"] / 100, [(at, bases[at], bases[at] * is_stacked + value) for at, value in run])
            )
            bases |= {at: bases[at] + value for at, value in run if is_stacked}
    high = max(top for band in bands for *_, top in band.points)
    high = high * 1.5 if is_log else defaults.get("max") or 5 * round_up((high or 1) / 5, unit)
    legend, rows = _legend(panel, series, tints)
    axes = scene.axes(panel, low, high, rows * _ROW, is_log=is_log)
    return chart(axes, axes.ticks(unit), bands, marks=scene.marks) + legend


def _legend(panel: Panel, series: Sequence[Series], tints: Mapping[str, str]) -> tuple[str, int]:
    """As far as there is room, and the number of rows. Grafana scrolls."""
    unit, fitting = panel.json["fieldConfig"]["defaults"]["unit"], (panel.height - _HEAD) * 2 // 5 // _ROW - 1
    numbers = [(each.name, [value for _, value in each.points]) for each in series]
    rows = [
        f'<tr><td><i style="background: {tints[name]}"></i>{escape(name)}<td>{shown(sum(its) / len(its), unit)}<td>{shown(max(its), unit)}'
        for name, its in numbers
    ]
    more = f"<span>and {len(rows) - fitting} more</span>" if len(rows) > fitting else ""
    return f'<table class="legend"><tr><th>Name {more}<th>Mean<th>Max{"".join(rows[:fitting])}</table>', min(len(rows), fitting) + 1


def _of_name(name: str, scene: Scene) -> str:
    return scene.colours.setdefault(name, f"hsl({(100 + 137.5 * len(scene.colours)) % 360:.0f} 65% 62%)")


def runs(points: Sequence[tuple[float, float]], step: float) -> list[list[tuple[float, float]]]:
    """Those without a gap."""
    found = [[points[0]]]
    for before, after in pairwise(points):
        if after[0] - before[0] > 1.5 * step:
            found.append([])
        found[-1].append(after)
    return found


def _state_timeline(panel: Panel, series: Sequence[Series], scene: Scene) -> str:
    spans = []
    for place, each in enumerate(series):
        field, begun = panel.field(each.name, each.query), each.points[0]
        for before, after in pairwise([*each.points, (each.points[-1][0] + scene.step, None)]):
            if after[1] != before[1] or after[0] - before[0] > 1.5 * scene.step:
                ends = min(before[0] + scene.step, scene.end)
                spans.append(Span(begun[0], ends, -place - 0.95, -place - 0.05, _colour_of(field, begun[1]), 0.8, _text(field, begun[1])))
                begun = (after[0], after[1])
    names = {-place - 0.5: each.name for place, each in enumerate(series)}
    return chart(scene.axes(panel, -len(series), 0), names, spans=spans)


def _heatmap(panel: Panel, series: Sequence[Series], scene: Scene) -> str:
    cells = [
        (at - scene.step, at, float(low), float(high), float(count))
        for each in series
        for at, histogram in each.points
        for _, low, high, count in histogram.get("buckets", ())
        if float(low) > 0
    ]
    if not cells:
        return _nothing(panel)
    most = max(cell[-1] for cell in cells)
    spans = [Span(start, end, low, high, _HEAT, 0.15 + 0.85 * (count / most) ** 0.5) for start, end, low, high, count in cells]
    legend = f'<div class="scale">0 <i style="background:linear-gradient(90deg,transparent,{_HEAT})"></i> {shown(most, "short")}</div>'
    axes = scene.axes(panel, min(cell[2] for cell in cells), max(cell[3] for cell in cells), _ROW, is_log=True)
    return chart(axes, axes.ticks(panel.json["options"]["yAxis"]["unit"]), spans=spans, marks=scene.marks) + legend


def _table(panel: Panel, series: Sequence[Series], _: Scene) -> str:
    merge, organize = panel.json["transformations"]
    assert (merge["id"], organize["id"]) == ("merge", "organize")
    titles: dict[str, str] = organize["options"]["renameByName"]
    keys, columns = [name for name in titles if not name.startswith("Value")], [name for name in titles if name.startswith("Value")]
    rows: dict[tuple[str, ...], dict[str, float]] = {}
    for each in series:
        rows.setdefault(tuple(each.labels.get(key, "") for key in keys), {})[f"Value #{each.query}"] = each.last
    (first,) = panel.json["options"]["sortBy"]
    by = next(name for name in columns if titles[name] == first["displayName"])
    fitting = (panel.height - _HEAD) // _TABLE_ROW - 2
    body = ""
    for labels, values in sorted(rows.items(), key=lambda row: row[1].get(by, -1), reverse=first["desc"])[:fitting]:
        body += "<tr>" + "".join(f'<td class="label">{escape(label)}' for label in labels)
        for column in columns:
            field = panel.field(titles[column])
            style = f' style="color:{_colour_of(field, values[column], "inherit")}"' if column in values else ""
            body += f"<td{style}>{_text(field, values[column]) if column in values else ''}"
    heads = "".join(f'<th class="label">{escape(titles[name])}' for name in keys) + "".join(
        f"<th>{escape(titles[name])}" for name in columns
    )
    more = f"<p>and {len(rows) - fitting} more</p>" if len(rows) > fitting else ""
    return f'<table class="data"><tr>{heads}{body}</table>{more}'


_DRAWN: Mapping[str, Callable[[Panel, Sequence[Series], Scene], str]] = {
    "stat": _stat,
    "timeseries": _timeseries,
    "state-timeline": _state_timeline,
    "heatmap": _heatmap,
    "table": _table,
}
"""By the type of panel; rows are drawn by the page."""
