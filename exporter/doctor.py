"""`shortproc-exporter doctor`: what each mode could do here, and why not."""

from __future__ import annotations

import os
import platform

from exporter.config.options import Config
from exporter.kernel.procfs import Procfs
from exporter.model import ModeUnavailable
from exporter.process import version
from exporter.supervision.modes import Rung, rungs, wanted


def main(config: Config) -> int:
    """Print a report. 0 if the exporter would run as configured, else 1."""
    procfs = Procfs(config.procfs)
    print(version.text())
    print(f"kernel: {os.uname().release} ({platform.machine()}), user: {os.geteuid()}, /proc: {config.procfs}")
    print()
    taken = None
    for rung in rungs(config, procfs):
        usable, reason = _tried(rung)
        if usable and taken is None and rung.mode in wanted(config):
            taken = rung.mode
        print(f"{rung.mode:<10}  {'usable' if usable else 'no':<6}  {reason}".rstrip())
    print()
    if not procfs.in_initial_pid_namespace():
        print(
            "note: this is not the host's first pid namespace. A scan sees only this namespace, while the kernel counts the whole host's "
            "clones: no capture ratio in fast_scan and scan"
        )
    asked = config.detection.mode
    if taken is None:
        print(f"{asked} would take: none; the exporter would not start")
    else:
        print(f"{asked} would take: {taken}")
    procfs.close()
    return 0 if taken is not None else 1


def _tried(rung: Rung) -> tuple[bool, str]:
    """Really start it, for a moment."""
    try:
        source = rung.make()
        source.start()
    except ModeUnavailable as refusal:
        return False, str(refusal)
    try:
        return True, source.about()
    finally:
        source.stop()
        source.drain()
