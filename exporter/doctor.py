"""`shortproc-exporter doctor`: which modes work here, and why the others don't."""

from __future__ import annotations

import os
import platform

from exporter.config.options import Config
from exporter.kernel.procfs import Procfs
from exporter.loaders.direct import Direct
from exporter.model import ModeUnavailable
from exporter.process import version
from exporter.records.subscriptions import of_handlers
from exporter.supervision.completeness import no_ratio
from exporter.supervision.modes import MODES, Host, ModeSpec, loader_settings
from exporter.supervision.selector import wanted


def main(config: Config) -> int:
    """Print a report. Returns 0 if the exporter would start with this configuration, else 1."""
    procfs = Procfs(config.procfs)
    host = Host(config.runtime_scale, config.detection, procfs, Direct(loader_settings(config)), config.records.tell_arguments)
    print(version.text())
    print(f"kernel: {os.uname().release} ({platform.machine()}), user: {os.geteuid()}, /proc: {config.procfs}")
    print()
    selected = None
    for spec in MODES:
        usable, reason = _tried(spec, host, events=bool(of_handlers(config)))
        if usable and selected is None and spec.mode in wanted(config):
            selected = spec.mode
        print(f"{spec.mode:<10}  {'usable' if usable else 'no':<6}  {reason}".rstrip())
        if not usable:
            print(f"{'':<20}needs: {spec.needs.replace('`', '')}")
    print()
    if not procfs.in_initial_pid_namespace():
        inexact = " and ".join(spec.mode for spec in MODES if not spec.exact)
        print(
            "note: this is not the host's pid namespace. A scan sees only this namespace, but the kernel counts the clones of the whole "
            f"host: {inexact} have no capture ratio"
        )
    if unmeasured := no_ratio(procfs):
        print(f"note: {unmeasured}")
    asked = config.detection.mode
    if selected is None:
        print(f"mode {asked} selects: none; the exporter would not start")
    else:
        print(f"mode {asked} selects: {selected}")
    procfs.close()
    return 0 if selected is not None else 1


def _tried(spec: ModeSpec, host: Host, *, events: bool) -> tuple[bool, str]:
    """Start the mode for a moment. Returns whether it works, and details or the reason why not. `events`: whether handlers want any."""
    try:
        source = spec.make(host)
        source.start()
    except ModeUnavailable as refusal:
        return False, str(refusal)
    try:
        missing = source.publish_events(lambda _: None) if events else None
        about = [source.about(), f"handlers get no events: {missing}" if missing else ""]
        return True, "; ".join(filter(None, about))
    finally:
        source.stop()
        source.drain()
