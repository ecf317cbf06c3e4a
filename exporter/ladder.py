"""The modes, best first, and what each needs to be made."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from exporter.config import AUTO, Config
from exporter.loaders.handover import Handover
from exporter.model import NS, Mode
from exporter.sources.base import Source
from exporter.sources.procfs import Procfs

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rung:
    """One mode. `make` gives a source that is not started yet; `refusal` says cheaply why it couldn't run, as far as that can be told."""

    mode: Mode
    make: Callable[[], Source]
    refusal: Callable[[], str | None]


def ladder(config: Config, procfs: Procfs) -> list[Rung]:
    """Every mode in its order. What a mode imports is imported when it is made: it costs memory."""
    return [
        Rung(Mode.EBPF_CORE, lambda: _ebpf_core(config, procfs), _core_refusal),
        Rung(Mode.EBPF_BCC, lambda: _ebpf_bcc(config, procfs), lambda: _bcc_refusal(config)),
        Rung(Mode.NETLINK, lambda: _netlink(config, procfs), lambda: _netlink_refusal(procfs)),
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


def _ebpf_core(config: Config, procfs: Procfs) -> Source:
    from exporter.loaders.core import load_core  # noqa: PLC0415
    from exporter.sources.charges import ChargeAudit  # noqa: PLC0415
    from exporter.sources.ebpf import EbpfSource  # noqa: PLC0415

    measures = config.measures
    return EbpfSource(Mode.EBPF_CORE, measures, lambda quiet: load_core(measures, loader_log, quiet=quiet), ChargeAudit(procfs))


def _core_refusal() -> str | None:
    from exporter.loaders.core import refusal  # noqa: PLC0415

    return refusal()


def _ebpf_bcc(config: Config, procfs: Procfs) -> Source:
    from exporter.loaders.bcc import load_bcc  # noqa: PLC0415
    from exporter.sources.charges import ChargeAudit  # noqa: PLC0415
    from exporter.sources.ebpf import EbpfSource  # noqa: PLC0415

    measures, interpreter = config.measures, config.detection.ebpf_bcc.interpreter or None

    def load(quiet: bool) -> Handover:
        return load_bcc(measures, loader_log, quiet=quiet, interpreter=interpreter, proc=procfs.root)

    return EbpfSource(Mode.EBPF_BCC, measures, load, ChargeAudit(procfs))


def _bcc_refusal(config: Config) -> str | None:
    from exporter.loaders.bcc import refusal  # noqa: PLC0415

    return refusal(config.detection.ebpf_bcc.interpreter or None)


def _netlink(config: Config, procfs: Procfs) -> Source:
    from exporter.sources.netlink import NetlinkSource  # noqa: PLC0415

    return NetlinkSource(config.measures, procfs)


def _netlink_refusal(procfs: Procfs) -> str | None:
    from exporter.sources.netlink import refusal  # noqa: PLC0415

    return refusal(procfs)


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


def loader_log(line: str) -> None:
    """Log what a loader's child says; what it notes is for the operator."""
    note = line.removeprefix("note: ")
    logger.log(logging.DEBUG if note == line else logging.WARNING, "%s", note)
