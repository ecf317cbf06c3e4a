"""Results that the documents' tables are made from: one JSON file for each measurement, with the machine that it comes from."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


def kept() -> bool:
    """Whether results are kept."""
    return bool(os.environ.get("WRITE"))


def write(name: str, measured: dict[str, Any]) -> None:
    """Keep a result if the environment has WRITE=1; `make docs` then writes it into the documents."""
    if not kept():
        return
    machine = {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpus": os.cpu_count(),
        "processor": _processor(),
        "system": platform.freedesktop_os_release()["PRETTY_NAME"],
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    (FOLDER / f"{name}.json").write_text(json.dumps({"machine": machine} | measured, indent=2) + "\n")


def read(name: str) -> dict[str, Any]:
    """Return the last result that was kept."""
    result: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return result


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
