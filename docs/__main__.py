"""`python -m docs [--check]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from docs import (
    commands_tables,
    compare_tables,
    completion,
    config_files,
    helm_schema,
    kernels_tables,
    man_pages,
    memory_tables,
    metrics_tables,
    modes_tables,
    native_tables,
    records_tables,
    switches_tables,
    top_tables,
)
from docs.marks import rendered

ROOT = Path(__file__).parents[1]
FILES: Mapping[str, Callable[[], Mapping[str, str]]] = {
    "README.md": lambda: modes_tables.readme() | compare_tables.blocks(),
    "docs/adr/0010-switches-by-the-clock.md": switches_tables.blocks,
    "docs/handlers.md": records_tables.handlers,
    "docs/kernels.md": kernels_tables.blocks,
    "docs/metrics.md": metrics_tables.blocks,
    "docs/modes.md": modes_tables.blocks,
    "docs/scaling.md": lambda: native_tables.blocks() | memory_tables.blocks(),
    "docs/snoop.md": lambda: records_tables.snoop() | commands_tables.snoop(),
    "docs/top.md": lambda: top_tables.blocks() | commands_tables.top(),
    "deploy/prometheus/rules/settings.yml": modes_tables.settings,
}
"""Each file, and what makes its blocks by the names in the marks."""
WHOLE: Mapping[str, Callable[[], str]] = {
    "config/exporter.yml": config_files.example,
    "config/schema.json": config_files.schema,
    "deploy/completion/shortproc-exporter.bash": completion.bash,
    "deploy/completion/_shortproc-exporter": completion.zsh,
    "deploy/helm/values.schema.json": helm_schema.schema,
    "deploy/man/shortproc-exporter.1": man_pages.commands,
    "deploy/man/shortproc-exporter.5": man_pages.configuration,
}
"""Each file that is generated altogether."""


def main() -> str | None:
    """Write the files, or say which are not current."""
    parser = argparse.ArgumentParser(prog="python -m docs", description="Write what is generated in documents, rules and configuration.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not current")
    checking = parser.parse_args().check
    written = {name: (ROOT / name).read_text() for name in (*FILES, *WHOLE)}
    wanted = {name: rendered(written[name], blocks()) for name, blocks in FILES.items()} | {name: make() for name, make in WHOLE.items()}
    stale = {name: text for name, text in wanted.items() if text != written[name]}
    if checking:
        return f"not current: {', '.join(stale)}; write them with: make docs" if stale else None
    for name, text in stale.items():
        (ROOT / name).write_text(text)
    return None


if __name__ == "__main__":
    sys.exit(main())
