"""The documents say what the program does."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from exporter.handlers.parent import HandlerStatus, Status
from exporter.metrics.document import rendered
from exporter.metrics.exposition import Exposition
from exporter.model import Mode
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
        return Status((HandlerStatus("a:b", 0, 0, 0, 0),), 0, running=True)


@pytest.fixture(scope="module")
def exposed() -> dict[str, Metric]:
    """Every family that there can be, by the name that a scrape shows."""
    config = replace(CONFIG, metrics=replace(CONFIG.metrics, per_comm_histogram=True))
    handlers = FakeHandlers()
    families = text_string_to_metric_families(Exposition(config, worst, LastReload(), handlers).render("")[0].decode())  # type: ignore[arg-type]
    return {f"{family.name}_total" if family.type == "counter" else family.name: family for family in families}


def test_each_metric_is_described_with_its_type_and_labels(exposed: dict[str, Metric]) -> None:
    """And no other is: whoever writes a query rests on this page."""
    described = {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in ROW.findall(METRICS.read_text())}
    described = {name: row for name, row in described.items() if row[0] in {"counter", "gauge", "histogram"}}
    real = {
        name: (family.type, frozenset(label for sample in family.samples for label in sample.labels) - {"le"})
        for name, family in exposed.items()
    }
    assert described == real


def test_the_page_of_metrics_is_current() -> None:
    """Its tables are made of what the code says; `make docs` writes them."""
    page = METRICS.read_text()
    assert rendered(page) == page


def test_a_table_without_a_place_is_noticed() -> None:
    """Whoever edits the page can't drop one by mistake."""
    with pytest.raises(ValueError, match="losses"):
        rendered(METRICS.read_text().replace("<!-- generated: losses -->", ""))


def test_each_help_text_is_a_plain_sentence(exposed: dict[str, Metric]) -> None:
    """It is read in a terminal or in a tooltip."""
    texts = [family.documentation for name, family in exposed.items() if name.startswith("shortproc_")]
    assert [text for text in texts if not text.endswith(".") or "`" in text or ". " in text] == []


def test_each_mode_is_explained() -> None:
    """The tables name them, and lead there."""
    page = METRICS.with_name("modes.md").read_text()
    assert [mode for mode in Mode if f"## {mode}" not in page] == []


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_readme_repeats_the_measured_figures_of_the_modes() -> None:
    """`bench` writes them into docs/modes.md; a figure that is typed a second time must be the same."""
    table = METRICS.with_name("modes.md").read_text().partition("<!-- measured -->\n")[2].partition("\n\n")[0]
    measured = {column[0]: set(column[1:]) for column in zip(*map(cells, table.splitlines()), strict=True)}
    stated = {row[0]: row[3:] for row in map(cells, (ROOT / "README.md").read_text().splitlines()) if len(row) == 6}
    assert {mode for mode in Mode if not stated[f"`{mode}`"] or set(stated[f"`{mode}`"]) - measured[f"`{mode}`"]} == set()


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
