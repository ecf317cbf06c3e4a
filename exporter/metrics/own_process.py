"""Metrics of the exporter's own process, with the names and texts that all Prometheus clients for Python have."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
from collections.abc import Iterator
from pathlib import Path

from exporter.metrics.catalogue import Family, ProcessMetrics
from exporter.metrics.families import Labels, Numbers

_PROC = Path("/proc")


class OwnProcess:
    """What `/proc` says of this process. What cannot be read is absent."""

    def __init__(self) -> None:
        self._tick_hz = os.sysconf("SC_CLK_TCK")
        self._boot_seconds = _boot_seconds()
        major, minor, patch = platform.python_version_tuple()
        self._python: Labels = (platform.python_implementation(), major, minor, patch, platform.python_version())

    def families(self) -> Iterator[Numbers]:
        """Yield all, as of now."""
        if self._boot_seconds:
            with contextlib.suppress(OSError):
                yield from self._usage()
            with contextlib.suppress(OSError):
                yield from _files()
        yield _one(ProcessMetrics.PYTHON, 1, self._python)

    def _usage(self) -> Iterator[Numbers]:
        # proc(5): from the state on, which is field 3; the name before it may contain anything
        stat = (_PROC / "self/stat").read_bytes().rpartition(b")")[2].split()
        yield _one(ProcessMetrics.VIRTUAL_MEMORY, int(stat[20]))
        yield _one(ProcessMetrics.MEMORY, int(stat[21]) * resource.getpagesize())
        yield _one(ProcessMetrics.STARTED, int(stat[19]) / self._tick_hz + self._boot_seconds)
        yield _one(ProcessMetrics.CPU, int(stat[11]) / self._tick_hz + int(stat[12]) / self._tick_hz)


def _files() -> Iterator[Numbers]:
    yield _one(ProcessMetrics.OPEN_FILES, len(os.listdir(_PROC / "self/fd")))  # noqa: PTH208 - only their number matters
    yield _one(ProcessMetrics.MOST_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _boot_seconds() -> float:
    """Return the Unix time of the boot; 0 if it cannot be read."""
    with contextlib.suppress(OSError), (_PROC / "stat").open("rb") as stat:
        return next((float(line.split()[1]) for line in stat if line.startswith(b"btime ")), 0)
    return 0


def _one(family: Family, value: float, labels: Labels = ()) -> Numbers:
    return Numbers(family, [(labels, value, 0)])
