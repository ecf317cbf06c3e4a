"""`shortproc-exporter doctor`: which modes work here, and why the others don't."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from exporter.config.options import Config
from exporter.kernel.procfs import Procfs
from exporter.loaders.direct import Direct
from exporter.model import Mode, ModeUnavailable
from exporter.process import version
from exporter.records.subscriptions import of_handlers
from exporter.supervision.completeness import no_ratio
from exporter.supervision.modes import MODES, Host, ModeSpec, loader_settings
from exporter.supervision.selector import wanted


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one mode."""

    mode: Mode
    usable: bool
    about: str
    """Details, or the reason why it does not work."""
    needs: str


@dataclass(frozen=True, slots=True)
class Report:
    """All that doctor found out. As JSON it has these names."""

    version: str
    kernel: str
    architecture: str
    uid: int
    procfs: str
    modes: tuple[Verdict, ...]
    """The best one first."""
    notes: tuple[str, ...]
    asked: str
    """`detection.mode`."""
    selected: Mode | None
    """The mode that the exporter would use; None if it would not start."""


def main(config: Config, *, as_json: bool = False, required: Mode | None = None) -> int:
    """Print a report. Returns 0 if the exporter would start with this configuration, and use `required` or a better mode; else 1."""
    report = _report(config)
    if as_json:
        print(json.dumps(asdict(report), indent=2))
    else:
        print("\n".join(_lines(report)))
    order = [spec.mode for spec in MODES]
    if report.selected is None:
        return 1
    if required is not None and order.index(report.selected) > order.index(required):
        if not as_json:
            print(f"{required} or a better mode is required")
        return 1
    return 0


def _report(config: Config) -> Report:
    procfs = Procfs(config.procfs)
    try:
        host = Host(config.runtime_scale, config.detection, procfs, Direct(loader_settings(config)), config.records.tell_arguments)
        verdicts = tuple(_tried(spec, host, events=bool(of_handlers(config))) for spec in MODES)
        modes = wanted(config)
        return Report(
            version=version.text(),
            kernel=os.uname().release,
            architecture=platform.machine(),
            uid=os.geteuid(),
            procfs=config.procfs,
            modes=verdicts,
            notes=tuple(_notes(procfs)),
            asked=config.detection.mode,
            selected=next((each.mode for each in verdicts if each.usable and each.mode in modes), None),
        )
    finally:
        procfs.close()


def _notes(procfs: Procfs) -> Iterator[str]:
    if not procfs.in_initial_pid_namespace():
        inexact = " and ".join(spec.mode for spec in MODES if not spec.exact)
        yield (
            "this is not the host's pid namespace. A scan sees only this namespace, but the kernel counts the clones of the whole "
            f"host: {inexact} have no capture ratio"
        )
    if unmeasured := no_ratio(procfs):
        yield unmeasured


def _lines(report: Report) -> Iterator[str]:
    yield report.version
    yield f"kernel: {report.kernel} ({report.architecture}), user: {report.uid}, /proc: {report.procfs}"
    yield ""
    for each in report.modes:
        yield f"{each.mode:<10}  {'usable' if each.usable else 'no':<6}  {each.about}".rstrip()
        if not each.usable:
            yield f"{'':<20}needs: {each.needs}"
    yield ""
    yield from (f"note: {note}" for note in report.notes)
    yield f"mode {report.asked} selects: {report.selected or 'none; the exporter would not start'}"


def _tried(spec: ModeSpec, host: Host, *, events: bool) -> Verdict:
    """Start the mode for a moment. `events`: whether handlers want any."""
    needs = spec.needs.replace("`", "")
    try:
        source = spec.make(host)
        source.start()
    except ModeUnavailable as refusal:
        return Verdict(spec.mode, usable=False, about=str(refusal), needs=needs)
    try:
        missing = source.publish_events(lambda _: None) if events else None
        about = [source.about(), f"handlers get no events: {missing}" if missing else ""]
        return Verdict(spec.mode, usable=True, about="; ".join(filter(None, about)), needs=needs)
    finally:
        source.stop()
        source.drain()
