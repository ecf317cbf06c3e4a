"""The modes, best first, and what each needs to be made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from exporter.config import AUTO, Config
from exporter.loaders.direct import Direct, Loader
from exporter.model import NS, Mode, Unusable
from exporter.sources.base import Source
from exporter.sources.procfs import Procfs


@dataclass(frozen=True, slots=True)
class Rung:
    """One mode. `make` gives a source that is not started yet; `refusal` says cheaply why it couldn't run, as far as that can be told."""

    mode: Mode
    make: Callable[[], Source]
    refusal: Callable[[], str | None]


def ladder(config: Config, procfs: Procfs, loader: Loader | None = None) -> list[Rung]:
    """Every mode in its order. `loader` has the privileges that some take; without one this process is to have them itself.

    What a mode imports is imported when it is made: it costs memory.
    """
    loader = loader or Direct(config.measures, config.procfs, config.detection.ebpf_bcc.interpreter or None)
    return [
        Rung(Mode.EBPF_CORE, lambda: _ebpf(Mode.EBPF_CORE, config, procfs, loader), lambda: _refusal(Mode.EBPF_CORE, loader)),
        Rung(Mode.EBPF_BCC, lambda: _ebpf(Mode.EBPF_BCC, config, procfs, loader), lambda: _refusal(Mode.EBPF_BCC, loader)),
        Rung(Mode.NETLINK, lambda: _netlink(config, procfs, loader), lambda: _refusal(Mode.NETLINK, loader)),
        Rung(Mode.FAST_SCAN, lambda: _fast_scan(config, procfs), lambda: _proc_refusal(procfs)),
        Rung(Mode.SCAN, lambda: _scan(config, procfs), lambda: _proc_refusal(procfs)),
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
    from exporter.sources.charges import ChargeAudit  # noqa: PLC0415
    from exporter.sources.ebpf import EbpfSource  # noqa: PLC0415

    return EbpfSource(mode, config.measures, lambda quiet: loader.programs(mode, quiet=quiet), ChargeAudit(procfs))


def _netlink(config: Config, procfs: Procfs, loader: Loader) -> Source:
    from exporter.sources.netlink import NetlinkSource  # noqa: PLC0415

    return NetlinkSource(config.measures, procfs, loader.sockets)


def _refusal(mode: Mode, loader: Loader) -> str | None:
    try:
        loader.look(mode)
    except Unusable as reason:
        return str(reason)
    return None


def _fast_scan(config: Config, procfs: Procfs) -> Source:
    from exporter.sources.fast_scan import FastScanSource  # noqa: PLC0415

    options = config.detection.fast_scan
    return FastScanSource(config.measures, procfs, round(options.interval_seconds * NS), options.cpu_share)


def _scan(config: Config, procfs: Procfs) -> Source:
    from exporter.sources.scan import ScanSource  # noqa: PLC0415

    return ScanSource(config.measures, procfs, round(config.detection.scan.interval_seconds * NS))


def _proc_refusal(procfs: Procfs) -> str | None:
    try:
        return None if procfs.pids() else f"no process is listed in {procfs.root}"
    except OSError as error:
        return f"{procfs.root} can't be listed: {error.strerror}"
