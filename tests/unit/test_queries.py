"""What stands beside the panels of the page: queries, and links to the documents that come with the exporter."""

from __future__ import annotations

import html
import re
from pathlib import Path
from urllib.parse import unquote

import yaml

from exporter.model.counts import Breakdown, Counts
from exporter.model.dimensions import COMM, PARENT
from exporter.model.ledger import Ledger
from exporter.model.owner import UNKNOWN
from exporter.records.hub import Hub
from tests.unit.pages import served
from tests.unit.snapshots import CONFIG, by_owner, by_parent, ended, ordinary
from tests.unit.test_rules import promtool
from tests.unit.web_clients import ask


def page() -> str:
    """With every dimension."""
    ledger = Ledger(CONFIG.caps, 0, lambda: 0)
    ledger.absorb(Counts(by={COMM: Breakdown({b"sh": ended(3)}), PARENT: by_parent({b"make": 1})} | by_owner({UNKNOWN: 1})))
    with served(ordinary(), Hub(10)) as site:
        site.supervisor.shown_standings = ledger.standings()
        return ask(site.url, "/")[2].decode()


def test_every_panel_of_metrics_has_a_query_that_prometheus_reads(tmp_path: Path) -> None:
    """Somebody copies it in an incident."""
    shown = page()
    queries = [html.unescape(each) for each in re.findall("<pre><code>(.*?)</code></pre>", shown)]
    without = re.findall(r'<section class="panel[^"]*"><h2>([^<]*)</h2>(?:(?!</section>).)*?</section>', shown, re.DOTALL)
    assert len(queries) == len(without) - 2 + 1, (
        "single processes and their ancestors are not in metrics; completeness stands with the modes"
    )
    assert all("shortproc_" in query for query in queries)
    rules = [{"record": f"page:query:{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "page.yml").write_text(yaml.safe_dump({"groups": [{"name": "page", "rules": rules}]}))
    assert f"{len(queries)} rules found" in promtool("check", "rules", tmp_path / "page.yml")


def test_every_link_leads_somewhere() -> None:
    """To a page of the exporter, and to a text that is in it: a metric, or the section of an alert."""
    links = {html.unescape(each) for each in re.findall('href="([^"]*)"', page())}
    assert len([link for link in links if "%23%23%20Shortproc" in link]) >= 8
    with served(ordinary(), Hub(10)) as site:
        for link in links:
            path, _, text = link.partition("#:~:text=")
            status, _, body = ask(site.url, f"/{path.lstrip('/')}")
            assert status == 200, link
            assert unquote(text) in body.decode(), link
            assert not text.startswith("%23") or f"\n{unquote(text)}\n" in body.decode(), link
