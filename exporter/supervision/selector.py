"""Starts the best mode that works, and keeps the status of each mode."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from exporter.config.options import AUTO, Config, Detection
from exporter.kernel.procfs import Procfs
from exporter.loaders.base import Loader
from exporter.model import Mode, ModeUnavailable, SourceFailed
from exporter.process.log import fields
from exporter.sources.base import Source
from exporter.supervision.modes import MODES, Host, ModeSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModeStatus:
    """The status of a mode on this host."""

    usable: bool
    reason: str = ""
    """Why it is not usable."""


UNTRIED = ModeStatus(usable=False, reason="not tried yet")


class ModeSelector:
    """The modes that the configuration allows, best first. The status of each mode is kept when the configuration changes."""

    def __init__(self, config: Config, procfs: Procfs, loader: Loader, specs: Sequence[ModeSpec] = MODES) -> None:
        """`specs` are all modes, best first."""
        self.specs = {spec.mode: spec for spec in specs}
        self.statuses = dict.fromkeys(self.specs, UNTRIED)
        self._procfs = procfs
        self._loader = loader
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Allow the modes that `config` allows."""
        self._host = Host(config.runtime_scale, config.detection, self._procfs, self._loader, config.records.tell_arguments)
        self.wanted = wanted(config, self.specs.values())

    @property
    def best(self) -> Mode:
        """The preferred mode."""
        return self.wanted[0]

    def above(self, mode: Mode) -> list[Mode]:
        """Return the allowed modes that are better than `mode`."""
        return self.wanted[: self.wanted.index(mode)]

    def start_best(self, modes: list[Mode], start: Callable[[Source], None], *, retry: bool = True) -> tuple[Source, str]:
        """Start the first of `modes` that works. Returns its source, and why the modes before it can't run.

        Modes known to be unusable are tried only with `retry`. Raises `ModeUnavailable` if none works.
        """
        refusals: list[str] = []
        for mode in modes:
            status = self.statuses[mode]
            if (retry or status.usable or status is UNTRIED) and (source := self._started(mode, start)) is not None:
                return source, "; ".join(refusals)
            refusals.append(f"{mode} can't run: {self.statuses[mode].reason}")
        raise ModeUnavailable("; ".join(refusals))

    def probe_rest(self, active: Mode) -> None:
        """Probe the modes that were not tried when `active` was started."""
        for mode, spec in self.specs.items():
            if mode != active and mode not in self.above(active):
                self.statuses[mode] = probed(spec, self._host)

    def failed(self, mode: Mode, why: str) -> None:
        """Note that it failed while it was active."""
        self.statuses[mode] = ModeStatus(usable=False, reason=f"it failed: {why}")

    def why(self, refusals: str) -> str:
        """Return why the active mode was selected, given why the better ones cannot run."""
        if refusals:
            return f"{refusals}."
        return "The configuration selects it." if len(self.wanted) == 1 else "It is the best mode, and it works here."

    def _started(self, mode: Mode, start: Callable[[Source], None]) -> Source | None:
        spec, known = self.specs[mode], self.statuses[mode]
        try:
            with _unforeseen(mode):
                spec.probe(self._host)
                source = spec.make(self._host)
                start(source)
        except ModeUnavailable as refusal:
            self.statuses[mode] = ModeStatus(usable=False, reason=str(refusal))
            if len(self.wanted) > 1 and known != self.statuses[mode]:
                logger.warning("mode can't run here", extra=fields(mode=mode, reason=refusal))
            return None
        self.statuses[mode] = ModeStatus(usable=True)
        return source


@contextlib.contextmanager
def _unforeseen(mode: Mode) -> Iterator[None]:
    """Turn any other exception into `ModeUnavailable`, so that it does not stop the active mode."""
    try:
        yield
    except (ModeUnavailable, SourceFailed):
        raise
    except Exception as error:
        logger.exception("mode failed to start", extra=fields(mode=mode))
        raise ModeUnavailable(f"it failed to start: {error!r}") from error


def probed(spec: ModeSpec, host: Host) -> ModeStatus:
    """Return the status of a mode from a cheap check, without starting it."""
    try:
        with _unforeseen(spec.mode):
            spec.probe(host)
    except ModeUnavailable as refusal:
        return ModeStatus(usable=False, reason=str(refusal))
    return ModeStatus(usable=True)


def wanted(config: Config, specs: Iterable[ModeSpec] = MODES) -> list[Mode]:
    """Return the modes to try, best first."""
    if config.detection.mode != AUTO:
        return [spec.mode for spec in specs if spec.mode == config.detection.mode]
    return [spec.mode for spec in specs if not (spec.loads_programs and config.no_ebpf)]


def same_options(one: Detection, other: Detection, mode: Mode) -> bool:
    """Return whether both configure the mode in the same way."""
    return getattr(one, mode, None) == getattr(other, mode, None)
