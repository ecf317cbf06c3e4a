"""`make bench`: every measurement, or those named: `python -m bench costs serving`."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from bench import (
    commands,
    compare,
    costs,
    events,
    handlers,
    memory,
    modes,
    native,
    otlp,
    records,
    revisions,
    scaling,
    scan_capture,
    serving,
    slowdown,
    storms,
    switches,
)

_ALL = {
    "compare": compare.main,
    "commands": commands.main,
    "modes": modes.main,
    "records": records.main,
    "handlers": handlers.main,
    "events": events.main,
    "otlp": otlp.main,
    "storms": storms.main,
    "switches": switches.main,
    "costs": costs.main,
    "slowdown": slowdown.main,
    "revisions": revisions.main,
    "serving": serving.main,
    "memory": memory.main,
    "scan_capture": scan_capture.main,
    "scaling": scaling.main,
    "native": native.main,
}


def main() -> None:
    """Say which machine this is, then measure."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), ""
    )
    print(f"Linux {os.uname().release} {platform.machine()}, {os.cpu_count()} CPUs ({model}), Python {platform.python_version()}")
    names = sys.argv[1:] or list(_ALL)
    if set(names) - set(_ALL):
        raise SystemExit(f"usage: python -m bench [{' | '.join(_ALL)}]...")
    sys.argv[1:] = []
    for name in names:
        print(f"\n== {name}")
        _ALL[name]()


if __name__ == "__main__":
    main()
