"""The documents say what the program does."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from docs.__main__ import FILES
from docs.marks import rendered
from docs.modes_tables import facts
from exporter.config.options import HandlerConfig
from exporter.handlers.parent import HandlerStatus, Status
from exporter.handlers.registries import Registries
from exporter.metrics.exposition import Exposition
from exporter.metrics.families import NativeHistograms
from exporter.model import Mode
from exporter.model.events import EventKind
from exporter.model.facts import Fact
from exporter.supervision.modes import MODES
from exporter.supervision.reload import LastReload
from tests.unit.snapshots import CONFIG, worst

ROOT = Path(__file__).parents[2]
METRICS = ROOT / "docs/metrics.md"
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]

ROW = re.compile(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)
SERIES_ENDINGS = ("_bucket", "_sum", "_count")


class FakeHandlers:
    """One handler, which did nothing: only its metrics' names matter here."""

    def status(self) -> Status:
        return Status((HandlerStatus("a:b", 0, 0, 0, 0, 0, 0),), 0, running=True)

    def registries(self) -> Registries:
        return Registries()


@pytest.fixture(scope="module")
def exposed() -> dict[str, Metric]:
    """Every family that there can be, by the name that a scrape shows."""
    subscriber = HandlerConfig("a:b", events=tuple(EventKind))
    config = replace(CONFIG, metrics=replace(CONFIG.metrics, per_comm_histogram=True), handlers=(subscriber,))
    handlers = FakeHandlers()
    exposition = Exposition(config, worst, LastReload(), handlers)  # type: ignore[arg-type]
    families = text_string_to_metric_families(exposition.render().decode())
    found = {f"{family.name}_total" if family.type == "counter" else family.name: family for family in families}
    for each in exposition.families():
        if isinstance(each, NativeHistograms):  # which text cannot carry
            found[each.family.name] = native = Metric(each.family.name, each.family.about, "histogram")
            for labels, histogram, _ in each.series:
                native.add_sample(native.name, dict(zip(each.family.labels, labels, strict=True)), histogram.sum)
    return found


def test_each_metric_is_described_with_its_type_and_labels(exposed: dict[str, Metric]) -> None:
    """And no other is: whoever writes a query rests on this page."""
    described = {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in ROW.findall(METRICS.read_text())}
    described = {name: row for name, row in described.items() if row[0] in {"counter", "gauge", "histogram"}}
    real = {
        name: (family.type, frozenset(label for sample in family.samples for label in sample.labels) - {"le"})
        for name, family in exposed.items()
    }
    assert described == real


@pytest.mark.parametrize("name", FILES)
def test_generated_tables_are_current(name: str) -> None:
    """They say what the code and the last measurement say; `make docs` writes them."""
    text = (ROOT / name).read_text()
    assert rendered(text, FILES[name]()) == text


def test_a_table_without_a_place_is_noticed() -> None:
    """An edit of the page can't drop one by mistake."""
    with pytest.raises(ValueError, match="losses"):
        rendered(METRICS.read_text().replace("<!-- generated: losses -->", ""), FILES["docs/metrics.md"]())


def test_a_new_mode_is_in_the_tables() -> None:
    """Its declaration is enough: what it can't tell is there as well."""
    toy = replace(MODES[0], fills={Fact.PROCESSES: "roughly"})
    rows = {title: cells for title, *cells in facts([toy])}
    assert rows[Fact.PROCESSES] == ["roughly"]
    assert {cell for title, cells in rows.items() if title != Fact.PROCESSES for cell in cells} == {"no"}


def test_each_help_text_is_a_plain_sentence(exposed: dict[str, Metric]) -> None:
    """It is read in a terminal or in a tooltip."""
    texts = [family.documentation for name, family in exposed.items() if name.startswith("shortproc_")]
    assert [text for text in texts if not text.endswith(".") or "`" in text or ". " in text] == []


def test_each_mode_is_explained() -> None:
    """The tables name them, and lead there."""
    page = METRICS.with_name("modes.md").read_text()
    assert [mode for mode in Mode if f"## {mode}" not in page] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_document_names_a_metric_that_is_not_there(path: Path, exposed: dict[str, Metric]) -> None:
    """A query that is copied from it must find something. `shortproc_comm_*` and the like name several."""
    known = {*exposed, *(f"{name}{ending}" for name, family in exposed.items() if family.type == "histogram" for ending in SERIES_ENDINGS)}
    named = re.findall(r"\bshortproc_\w+(?![\w*])", path.read_text())
    assert not {name for name in named if not name.endswith("_")} - known


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_link_leads_somewhere(path: Path) -> None:
    """To a file of this repository; addresses elsewhere are not asked."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
    assert not [link for link in links if not (path.parent / link).exists()]
