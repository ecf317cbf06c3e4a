"""The modes, best first, and what each needs to be made."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from exporter.config import AUTO, Config
from exporter.model import NS, Mode, Unusable
from exporter.sources.base import Source
from exporter.sources.procfs import Procfs

logger = logging.getLogger(__name__)

LATER = "this version does not have it"


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
        Rung(Mode.EBPF_BCC, _not_yet, lambda: LATER),
        Rung(Mode.NETLINK, _not_yet, lambda: LATER),
        Rung(Mode.FAST_SCAN, lambda: _fast_scan(config, procfs), lambda: _proc_refusal(procfs)),
        Rung(Mode.SCAN, lambda: _scan(config, procfs), lambda: _proc_refusal(procfs)),
    ]


def wanted(config: Config) -> list[Mode]:
    """The modes to try, best first."""
    modes = list(Mode)
    if config.detection.mode != AUTO:
        return [Mode(config.detection.mode)]
    return modes[modes.index(Mode.NETLINK) :] if config.no_ebpf else modes


def _ebpf_core(config: Config, procfs: Procfs) -> Source:
    from exporter.loaders.core import load_core  # noqa: PLC0415
    from exporter.sources.charges import ChargeAudit  # noqa: PLC0415
    from exporter.sources.ebpf import EbpfSource  # noqa: PLC0415

    measures = config.measures
    return EbpfSource(Mode.EBPF_CORE, measures, lambda: load_core(measures, logger.debug), ChargeAudit(procfs))


def _core_refusal() -> str | None:
    from exporter.loaders.core import refusal  # noqa: PLC0415

    return refusal()


def _not_yet() -> Source:
    raise Unusable(LATER)


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
