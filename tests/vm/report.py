"""What is found inside a guest: a line for each check, and at the end all of it as one line of JSON, for `tests.vm.matrix`."""

# ruff: noqa: T201
from __future__ import annotations

import json
import os
import platform
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from exporter.model import ModeUnavailable
from tests.kernel.failing import Unavailable

RESULT = "result: "
"""What the line of JSON begins with."""


@dataclass(slots=True)
class Section:
    """A group of checks."""

    checks: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    refused: str = ""
    """Why a mode does not run here, by its own words."""
    facts: dict[str, str] = field(default_factory=dict)
    seconds: float = 0


class Report:
    """All sections so far."""

    def __init__(self) -> None:
        self.sections: dict[str, Section] = {}
        self._now = Section()
        print(os.uname().release, platform.machine())

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """What is checked inside belongs to it. An exception fails it, and is not raised; a mode that can't run is refused."""
        print(f"{name}:", flush=True)
        self._now = self.sections[name] = Section()
        begun = time.monotonic()
        try:
            yield
        except ModeUnavailable as reason:
            self._now.refused = str(reason)
            print(f"  refused: {reason}", flush=True)
        except (Unavailable, PermissionError, FileNotFoundError) as reason:
            self.skip(name, reason)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other sections still count
            traceback.print_exc()
            self._now.failed.append(f"{type(error).__name__}: {error}")
        self._now.seconds = round(time.monotonic() - begun, 1)

    def check(self, what: str, seen: object, wanted: object) -> None:
        """Count and print one check."""
        line = f"{what}: {seen}" + ("" if seen == wanted else f", not {wanted}")
        self._now.checks += 1
        if seen != wanted:
            self._now.failed.append(line)
        print(f"  {'ok  ' if seen == wanted else 'FAIL'} {line}", flush=True)

    def skip(self, what: str, why: object) -> None:
        self._now.skipped.append(f"{what}: {why}")
        print(f"  skip {what}: {why}", flush=True)

    def fact(self, name: str, value: object) -> None:
        self._now.facts[name] = str(value)
        print(f"       {name}: {value}", flush=True)

    def end(self) -> int:
        """Print the line of JSON. Returns the exit status."""
        failed = sum(len(each.failed) for each in self.sections.values())
        print(f"{failed} checks failed")
        host = {"release": os.uname().release, "architecture": platform.machine(), "cpus": os.cpu_count()}
        print(RESULT + json.dumps(host | {"sections": {name: asdict(each) for name, each in self.sections.items()}}), flush=True)
        return int(failed > 0)
