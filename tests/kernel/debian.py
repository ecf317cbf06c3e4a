"""Builds the Debian package."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
NAME = "shortproc-exporter"
QUICKER = {"PIP_NO_BUILD_ISOLATION": "false"}
"""Pip takes that for --no-build-isolation."""


def build(folder: Path, *more: str, of: Path = CHECKOUT) -> Path:
    """Build a package of a checkout; its path."""
    command: list[str | Path] = [of / "deploy/debian/build", "--output", folder, *more]
    result = subprocess.run(command, env=os.environ | QUICKER, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return Path(result.stdout.strip())
