"""`python -m grafana [--check]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana import fleet, host

FOLDER = Path(__file__).parent


def rendered() -> dict[Path, str]:
    """Each file and what belongs in it."""
    encoder = JSONEncoder(indent=2)
    return {FOLDER / f"{page.uid}.json": encoder.encode(page) + "\n" for page in (fleet.page(), host.page())}


def main() -> str | None:
    """Write the files, or say which are not current."""
    parser = argparse.ArgumentParser(prog="python -m grafana", description="Write the dashboards.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not current")
    files = rendered()
    if parser.parse_args().check:
        stale = [path.name for path, text in files.items() if not path.exists() or path.read_text() != text]
        return f"not current: {', '.join(stale)}; write them with: python -m grafana" if stale else None
    for path, text in files.items():
        path.write_text(text)
    return None


if __name__ == "__main__":
    sys.exit(main())
