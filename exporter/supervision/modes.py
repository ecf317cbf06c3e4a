"""The modes, best first: what each needs to be made, which are wanted, and what is known of each here."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from exporter.config.options import AUTO, Config
from exporter.kernel.procfs import Procfs
from exporter.loaders.direct import Direct, Loader
from exporter.model import NS, Mode, ModeUnavailable, SourceFailed
from exporter.process.log import fields
from exporter.sources.base import Source

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rung:
    """One mode. `make` gives a source that is not started yet; `look` raises `ModeUnavailable` if a cheap check finds an obstacle."""

    mode: Mode
    make: Callable[[], Source]
    look: Callable[[], None]


@dataclass(frozen=True, slots=True)
class ModeStatus:
    """What is known of a mode here."""

    usable: bool
    reason: str = ""


class ModeSelector:
    """The modes that a configuration wants. What was found out about each stays when that changes."""

    def __init__(self, config: Config, procfs: Procfs, loader: Loader | None = None) -> None:
        """See `rungs`."""
        self.states: dict[Mode, ModeStatus] = {}
        self._procfs = procfs
        self._loader = loader
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Want what `config` does."""
        self._rungs = {rung.mode: rung for rung in rungs(config, self._procfs, self._loader)}
        self.wanted = wanted(config)

    @property
    def best(self) -> Mode:
        """The mode that is wanted most."""
        return self.wanted[0]

    def above(self, mode: Mode) -> list[Mode]:
        """Those that are wanted more than `mode`."""
        return self.wanted[: self.wanted.index(mode)]

    def take(self, modes: list[Mode], start: Callable[[Source], None], *, retry: bool = True) -> tuple[Source, str]:
        """Start the best of `modes` that works; with it comes why those before it can't run. Raises `ModeUnavailable` if none works.

        Those known to be unusable are tried only to `retry`.
        """
        refusals: list[str] = []
        for mode in modes:
            known = self.states.get(mode)
            if (retry or known is None or known.usable) and (source := self._started(mode, start)) is not None:
                return source, "; ".join(refusals)
            refusals.append(f"{mode} can't run: {self.states[mode].reason}")
        raise ModeUnavailable("; ".join(refusals))

    def probe_rest(self, taken: Mode) -> None:
        """Look at the modes that were not tried when `taken` was."""
        for mode, rung in self._rungs.items():
            if mode != taken and mode not in self.above(taken):
                self.states[mode] = probed(rung)

    def failed(self, mode: Mode, why: str) -> None:
        """It broke while it ran."""
        self.states[mode] = ModeStatus(usable=False, reason=f"it failed: {why}")

    def why(self, refusals: str) -> str:
        """Say why the active mode is, where those above it can't run for `refusals`."""
        asked = "It was asked for." if len(self.wanted) == 1 else "It is the best mode there is, and it works here."
        return f"{refusals}." if refusals else asked

    def _started(self, mode: Mode, start: Callable[[Source], None]) -> Source | None:
        rung, known = self._rungs[mode], self.states.get(mode)
        try:
            with _trying(mode):
                rung.look()
                source = rung.make()
                start(source)
        except ModeUnavailable as refusal:
            self.states[mode] = ModeStatus(usable=False, reason=str(refusal))
            if len(self.wanted) > 1 and known != self.states[mode]:
                logger.warning("mode can't run here", extra=fields(mode=mode, reason=refusal))
            return None
        self.states[mode] = ModeStatus(usable=True)
        return source


@contextlib.contextmanager
def _trying(mode: Mode) -> Iterator[None]:
    """What nobody planned for is a reason why a mode can't run, too: it must not end the one that does."""
    try:
        yield
    except (ModeUnavailable, SourceFailed):
        raise
    except Exception as error:
        logger.exception("mode broke as it was tried", extra=fields(mode=mode))
        raise ModeUnavailable(f"it broke as it was tried: {error!r}") from error


def probed(rung: Rung) -> ModeStatus:
    """What can be told of a mode without starting it."""
    try:
        with _trying(rung.mode):
            rung.look()
    except ModeUnavailable as refusal:
        return ModeStatus(usable=False, reason=str(refusal))
    return ModeStatus(usable=True)


def rungs(config: Config, procfs: Procfs, loader: Loader | None = None) -> list[Rung]:
    """Every mode in its order. `loader` has the privileges that some take; without one this process is to have them itself.

    What a mode imports is imported when it is made: it costs memory.
    """
    loader = loader or Direct(config.runtime_scale, config.procfs, config.detection.ebpf_bcc.interpreter or None)
    return [
        Rung(Mode.EBPF_CORE, lambda: _ebpf(Mode.EBPF_CORE, config, procfs, loader), lambda: loader.look(Mode.EBPF_CORE)),
        Rung(Mode.EBPF_BCC, lambda: _ebpf(Mode.EBPF_BCC, config, procfs, loader), lambda: loader.look(Mode.EBPF_BCC)),
        Rung(Mode.NETLINK, lambda: _netlink(config, procfs, loader), lambda: loader.look(Mode.NETLINK)),
        Rung(Mode.FAST_SCAN, lambda: _fast_scan(config, procfs), lambda: _look_at(procfs)),
        Rung(Mode.SCAN, lambda: _scan(config, procfs), lambda: _look_at(procfs)),
    ]


def wanted(config: Config) -> list[Mode]:
    """The modes to try, best first."""
    modes = list(Mode)
    if config.detection.mode != AUTO:
        return [Mode(config.detection.mode)]
    return modes[modes.index(Mode.NETLINK) :] if config.no_ebpf else modes


def same_options(one: Config, other: Config, mode: Mode) -> bool:
    """Whether a mode would be made the same by both."""
    return getattr(one.detection, mode, None) == getattr(other.detection, mode, None)


def _ebpf(mode: Mode, config: Config, procfs: Procfs, loader: Loader) -> Source:
    from exporter.sources.ebpf.cpu_audit import CpuAudit  # noqa: PLC0415
    from exporter.sources.ebpf.source import EbpfSource  # noqa: PLC0415

    return EbpfSource(mode, config.runtime_scale, lambda quiet: loader.programs(mode, quiet=quiet), CpuAudit(procfs))


def _netlink(config: Config, procfs: Procfs, loader: Loader) -> Source:
    from exporter.sources.netlink.source import NetlinkSource  # noqa: PLC0415

    return NetlinkSource(config.runtime_scale, procfs, loader.sockets)


def _fast_scan(config: Config, procfs: Procfs) -> Source:
    from exporter.sources.scan.fast import FastScanSource  # noqa: PLC0415

    options = config.detection.fast_scan
    return FastScanSource(config.runtime_scale, procfs, round(options.interval_seconds * NS), options.cpu_share)


def _scan(config: Config, procfs: Procfs) -> Source:
    from exporter.sources.scan.slow import ScanSource  # noqa: PLC0415

    return ScanSource(config.runtime_scale, procfs, round(config.detection.scan.interval_seconds * NS))


def _look_at(procfs: Procfs) -> None:
    try:
        listed = procfs.pids()
    except OSError as error:
        raise ModeUnavailable(f"{procfs.root} can't be listed: {error.strerror}") from error
    if not listed:
        raise ModeUnavailable(f"no process is listed in {procfs.root}")
