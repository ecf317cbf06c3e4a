"""A dimension is one declaration: its metrics, its lines in the documents and its tables on the page follow from it."""

from __future__ import annotations

import re
from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from exporter.config.options import Attribution, Config, Metrics
from exporter.metrics.catalogue import by_dimension
from exporter.metrics.exposition import Exposition
from exporter.model import NS
from exporter.model.counts import Breakdown, Counts, ProcessCounts
from exporter.model.dimensions import COMM, DIMENSIONS, FAILED_EXITS, PARENT, SHORT_EXITS, SPAWNER, Dimension, Ranking
from exporter.model.facts import Fact
from exporter.model.ledger import Ledger
from exporter.records.hub import Hub
from exporter.supervision.reload import LastReload
from exporter.web.pages import Pages
from tests.unit.pages import FakeSupervisor
from tests.unit.snapshots import CONFIG, snapshot

UNIT: Dimension[tuple[str, int]] = Dimension(
    name="unit",
    about="unit",
    noun="unit",
    labels=("kind", "unit"),
    headings=("Kind", "Unit"),
    labels_of=lambda key: (key[0], f"job-{key[1]}.{key[0]}"),
    cap="",
    fact=Fact.RECORD_CGROUP,
    held=False,
    measures=(SHORT_EXITS, FAILED_EXITS),
    rankings=(Ranking("Units that fail most", (FAILED_EXITS, SHORT_EXITS)),),
)
"""Declared here and nowhere else."""

COUNTS = Counts(
    by={
        UNIT: Breakdown(
            {
                ("service", 1): ProcessCounts([0, 7, 2, 0], short_exits=5),
                ("scope", 22): ProcessCounts([30, 1, 0, 0], short_exits=31),
                ("scope", 3): ProcessCounts([1, 0, 0, 0], short_exits=1),
            },
            ProcessCounts(short_exits=4),
        )
    }
)
CAPS = CONFIG.caps | {UNIT: 2}


def test_a_declared_dimension_is_on_metrics() -> None:
    """With its labels, its cap, a measure of its own and a row for the others, each in the place that its name says."""
    shown = snapshot(COUNTS, caps=CAPS)
    text = Exposition(CONFIG, lambda: shown, LastReload()).render().decode()
    found = {family.name: family for family in text_string_to_metric_families(text) if "_unit_" in family.name}
    rows = {
        name.removeprefix("shortproc_unit_"): {(each.labels["kind"], each.labels["unit"]): each.value for each in family.samples}
        for name, family in found.items()
    }
    assert rows == {
        "short_exits": {("service", "job-1.service"): 5, ("scope", "job-22.scope"): 31, ("other", "other"): 5},
        "failed_exits": {("service", "job-1.service"): 9, ("scope", "job-22.scope"): 1, ("other", "other"): 0},
    }
    assert found["shortproc_unit_failed_exits"].documentation == "Processes that exited with an error or were killed by a signal, by unit."


def test_a_declared_dimension_is_on_the_page() -> None:
    """Ranked as it is declared, in text that a browser shows."""
    ledger = Ledger(CAPS, 0, lambda: 0)
    ledger.absorb(COUNTS)
    supervisor = FakeSupervisor(snapshot(COUNTS, caps=CAPS), ledger.standings())
    page = Pages(Config(), supervisor, LastReload(), Hub(10)).landing(records=True)
    section = page[page.index("Units that fail most, last 5 minutes") :]
    head, body = section[: section.index("</thead>")], section[section.index("<tbody") : section.index("</tbody>")]
    assert re.findall(r"<th [^>]*>(\w+)</th>", head) == ["Kind", "Unit", "Failed", "Short", "Series"]
    assert re.findall(r"job-\d+|own|other", body) == ["job-1", "own", "job-22", "own"], "a unit without failures is not listed"


def test_newcomers_are_held_only_where_it_is_declared() -> None:
    """Keys that can't come in a burst may show their value from the drain on."""
    held = Counts(by={COMM: Breakdown({b"sh": ProcessCounts([5, 0, 0, 0])})} | COUNTS.by)
    ledger = Ledger(CAPS, 60 * NS, lambda: 0)
    ledger.absorb(held)
    rows = ledger.view(Counts()).rows
    assert {row.labels: row.counts for row in rows[COMM]}["sh",] == ProcessCounts()
    assert {row.labels: row.counts for row in rows[UNIT]}["service", "job-1.service"].short_exits == 5


def test_what_a_source_does_not_break_down_is_in_no_row() -> None:
    """A mode may know nothing of a dimension; the others go on."""
    ledger = Ledger(CAPS, 0, lambda: 0)
    ledger.absorb(Counts(by={PARENT: Breakdown({b"make": ProcessCounts(short_exits=1)})}))
    rows = ledger.view(Counts()).rows
    assert [row[:2] for row in rows[UNIT]] == [(("other", "other"), ProcessCounts())]
    assert [row.labels for row in rows[PARENT]] == [("make",), ("other",)]


def test_the_configuration_caps_dimensions() -> None:
    """By an option that the declaration names; 0 switches a dimension off, and if nothing needs origins, they are not counted."""
    attribution = Attribution(max_owners=0, max_owner_comms=0, max_spawners=5, max_users=0)
    config = Config(metrics=Metrics(max_comms=7), attribution=attribution)
    assert config.caps == {COMM: 7, PARENT: 20, SPAWNER: 5}
    assert config.by_origin
    assert not Config(attribution=replace(attribution, max_spawners=0, max_parents=0)).by_origin


def test_what_is_declared_fits_together() -> None:
    """No two metrics share a name, each label has its heading, and what the page ranks by is measured."""
    families = [by_dimension(each, measure) for each in DIMENSIONS for measure in each.measures]
    assert len({family.name for family in families}) == len(families)
    for dimension in DIMENSIONS:
        assert len(dimension.labels) == len(dimension.other)
        assert len(dimension.cells_of(dimension.other)) == len(dimension.headings)
        assert {column for ranking in dimension.rankings for column in ranking.columns} <= {*dimension.measures, FAILED_EXITS}
        for measure in dimension.measures:
            assert len(measure.values(ProcessCounts())) == (len(measure.parts) or 1)
            assert bool(measure.parts) == bool(measure.label)
            assert isinstance(Config().value(measure.option), bool) if measure.option else True
