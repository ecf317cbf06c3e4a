"""`python -m docs [--check]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from docs import metrics_tables, modes_tables
from docs.marks import rendered

ROOT = Path(__file__).parents[1]
FILES: Mapping[str, Callable[[], Mapping[str, str]]] = {
    "README.md": modes_tables.readme,
    "docs/metrics.md": metrics_tables.blocks,
    "docs/modes.md": modes_tables.blocks,
    "deploy/prometheus/rules/settings.yml": modes_tables.settings,
}
"""Each file, and what makes its blocks by the names in the marks."""


def main() -> str | None:
    """Write the files, or say which are not current."""
    parser = argparse.ArgumentParser(prog="python -m docs", description="Write what is generated in documents and rules.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not current")
    checking = parser.parse_args().check
    stale = {}
    for name, blocks in FILES.items():
        written = (ROOT / name).read_text()
        if (text := rendered(written, blocks())) != written:
            stale[name] = text
    if checking:
        return f"not current: {', '.join(stale)}; write them with: make docs" if stale else None
    for name, text in stale.items():
        (ROOT / name).write_text(text)
    return None


if __name__ == "__main__":
    sys.exit(main())
