"""How panels look: colours, units, and one function for each kind."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders.dashboard import DashboardLink, FieldColor, ThresholdsConfig
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat, QueryEditorMode

from exporter.metrics.catalogue import DETAILS
from exporter.model import Outcome
from exporter.supervision.modes import MODES
from grafana.queries import WHOLE

PER_SECOND, CORES, SHARE, SECONDS, BYTES, COUNT = "count:/s", "count:cores", "percentunit", "s", "bytes", "short"
NONE = "none"
USUAL = "suffix: times usual"

GOOD, NOTICE, WARN, BAD, MUTED = "green", "blue", "orange", "red", "#808080"
ALL, SHORT = "blue", "orange"
COLOURS = {spec.mode.value: spec.colour for spec in MODES}
"""Of modes, best first."""
OUTCOMES: dict[str, str] = dict(zip(Outcome, (GOOD, WARN, BAD, MUTED), strict=True))
VERDICTS = {"complete": GOOD, "degraded": WARN, "partial": BAD, "unknown": "purple", "blind": BAD, "not scraped": BAD}

SOURCE = looks.DataSourceRef("prometheus", "${datasource}")
MIN_STEP = "30s"
"""The rate interval is at least four of these, so rates have no gaps up to a scrape interval of 60 s."""
RUNBOOK = "${runbook}"
NEEDS_HISTOGRAMS = "from native histograms, or with per_comm_histogram"

Panel = Builder[model.Panel]
Query = prometheus.Dataquery
_Some = TypeVar("_Some", timeseries.Panel, stat.Panel, table.Panel, statetimeline.Panel, heatmap.Panel)


class Frame(NamedTuple):
    """What every panel has. `about` is one sentence; `runbook` the heading there that says what to do."""

    title: str
    about: str
    unit: str
    size: tuple[int, int] = (12, 8)
    runbook: str = ""


class Column(NamedTuple):
    """One of a table's, from an instant query."""

    title: str
    expr: str
    unit: str
    look: tuple[model.DynamicConfigValue, ...] = ()


def query(expr: str, legend: str = "") -> Query:
    """Over the time shown."""
    return Query().expr(expr).legend_format(legend).range().interval(MIN_STEP)


def now(expr: str, legend: str = "") -> Query:
    """At the end of the time shown."""
    return Query().expr(expr).legend_format(legend).instant()


def lines(frame: Frame, *queries: Query, colours: Mapping[str, str] | None = None, stacked: bool = False) -> timeseries.Panel:
    """Over time; with fixed colours where the names are known, else one colour for each name on all panels."""
    calcs, area = ["mean", "max"], 60 if stacked else 10
    legend = common.VizLegendOptions().show_legend(True).display_mode(looks.LegendDisplayMode.TABLE)
    panel = _framed(timeseries.Panel(), frame, queries).min(0).fill_opacity(area).show_points(looks.VisibilityMode.NEVER)
    panel.color_scheme(FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME)).line_width(1)
    panel.legend(legend.placement(looks.LegendPlacement.BOTTOM).calcs(calcs).sort_by("Max").sort_desc(True))
    panel.tooltip(common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING))
    if stacked:
        panel.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL).group("A"))
    for name, colour in (colours or {}).items():
        panel.override_by_name(name, [fixed(colour)])
    return panel


def tiles(frame: Frame, *queries: Query, spark: bool = False) -> stat.Panel:
    """Numbers; one tile for each series."""
    panel = _framed(stat.Panel(), frame, queries).reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.graph_mode(looks.BigValueGraphMode.AREA if spark else looks.BigValueGraphMode.NONE)
    return panel.color_scheme(FieldColor().mode(model.FieldColorModeId.FIXED).fixed_color(ALL))


def banner(frame: Frame, *queries: Query) -> stat.Panel:
    """Tiles whose background is the message."""
    return tiles(frame, *queries).color_mode(looks.BigValueColorMode.BACKGROUND).text_mode(looks.BigValueTextMode.VALUE_AND_NAME)


def timeline(frame: Frame, *queries: Query) -> statetimeline.Panel:
    """States over time."""
    panel = _framed(statetimeline.Panel(), frame, queries).merge_values(True).show_value(looks.VisibilityMode.AUTO)
    return panel.legend(common.VizLegendOptions().show_legend(False)).fill_opacity(80)


def heat(frame: Frame, native: str, classic: str) -> heatmap.Panel:
    """A histogram over time: a native one, or the buckets by `le` of a classic one.

    Grafana tells the first by the type of its data, the other by the format of the query.
    """
    queries = query(native), query(classic, "{{le}}").format(PromQueryFormat.HEATMAP)
    panel = _framed(heatmap.Panel(), frame, queries).calculate(False)
    panel.y_axis(heatmap.YAxisConfig().unit(frame.unit)).cell_values(heatmap.CellValues().unit(COUNT)).cell_gap(1)
    return panel.color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)).show_legend()


def rows(frame: Frame, keys: Mapping[str, str], columns: Sequence[Column]) -> table.Panel:
    """One for each set of labels, which `keys` gives titles, sorted by the first column."""
    panel = _framed(table.Panel(), frame, [now(column.expr).format(PromQueryFormat.TABLE) for column in columns])
    titles = {f"Value #{letter}": column.title for letter, column in zip(string.ascii_uppercase, columns, strict=False)}
    names = {**keys, **titles}
    order = {name: place for place, name in enumerate(names)}
    panel.with_transformation(model.DataTransformerConfig("merge", options={}))
    organized = {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": names}
    panel.with_transformation(model.DataTransformerConfig("organize", options=organized))
    for column in columns:
        panel.override_by_name(column.title, [model.DynamicConfigValue("unit", column.unit), *column.look])
    return panel.sort_by([common.TableSortByFieldState().display_name(columns[0].title).desc(True)]).filterable(True)


def steps(colour: str, *higher: tuple[float, str]) -> ThresholdsConfig:
    """Thresholds: a colour, and another one from each value on."""
    thresholds = [model.Threshold(None, colour), *(model.Threshold(value, other) for value, other in higher)]
    return ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(thresholds)


def by_threshold() -> FieldColor:
    """The colour is the threshold's."""
    return FieldColor().mode(model.FieldColorModeId.THRESHOLDS)


def states(*named: tuple[str, str]) -> model.ValueMap:
    """Texts and colours of 0, 1, ..."""
    return model.ValueMap({str(value): model.ValueMappingResult(text, colour, index=value) for value, (text, colour) in enumerate(named)})


MODE_STATES = states(("none", BAD), *COLOURS.items())
"""Of `Scope.mode`."""
SCRAPED_STATES = states(("no", BAD), ("yes", GOOD))
DEGRADED_STATES = states(("no", GOOD), ("yes", WARN))


SEEN_STEPS = steps(BAD, (0.95, WARN), (WHOLE, GOOD))
LOST_STEPS = steps(GOOD, (0.5, WARN))


COUNTED = f'reason!~"{DETAILS}"'
"""Losses of events, without those that were counted without a detail, such as their CPU time."""


def lost_tile(lost: str, size: tuple[int, int]) -> stat.Panel:
    """How much was lost, by any cause."""
    about = "Events that were not counted."
    tile = tiles(Frame("Lost events", about, COUNT, size, "shortproceventslost"), now(f"sum({lost})"))
    return tile.thresholds(LOST_STEPS).color_scheme(by_threshold())


def logarithmic() -> common.ScaleDistributionConfig:
    """An axis for times from microseconds to minutes."""
    return common.ScaleDistributionConfig().type(looks.ScaleDistribution.LOG).log(10)


def fixed(colour: str) -> model.DynamicConfigValue:
    """One colour, as an override."""
    return model.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})


def coloured(mapping: model.ValueMap | None = None, thresholds: ThresholdsConfig | None = None) -> tuple[model.DynamicConfigValue, ...]:
    """A table's cells, by value."""
    look: dict[str, Any] = {"custom.cellOptions": {"type": "color-text"}}
    if mapping is not None:
        look["mappings"] = [mapping]
    if thresholds is not None:
        look |= {"thresholds": thresholds.build(), "color": {"mode": "thresholds"}}
    return tuple(model.DynamicConfigValue(*each) for each in look.items())


def _framed(panel: _Some, frame: Frame, queries: Sequence[Query]) -> _Some:
    panel.title(frame.title).description(frame.about).unit(frame.unit).span(frame.size[0]).height(frame.size[1]).datasource(SOURCE)
    if frame.runbook:
        url = f"{RUNBOOK}#{frame.runbook}"
        panel.links([DashboardLink("What to do").type(model.DashboardLinkType.LINK).url(url).target_blank(True)])
    for letter, each in zip(string.ascii_uppercase, queries, strict=False):
        panel.with_target(each.ref_id(letter).datasource(SOURCE).editor_mode(QueryEditorMode.CODE))
    return panel
