"""Declares the modes, best first. The rest of the exporter, the dashboards and the documents take all facts about modes from here.

To add one: its name in `model.Mode`, its source under `sources/`, its `ModeSpec` here, its section in docs/modes.md, and tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from exporter.config.options import Config, Detection
from exporter.kernel.procfs import Procfs
from exporter.loaders.base import Loader, Settings
from exporter.model import NS, Lost, Mode, ModeUnavailable, RuntimeScale
from exporter.model.facts import Fact
from exporter.model.failures import FailedStarts
from exporter.records.subscriptions import Subscription, of_handlers, wanted_events
from exporter.sources.base import Source


class Host(NamedTuple):
    """The values that a source is made from."""

    scale: RuntimeScale
    detection: Detection
    procfs: Procfs
    loader: Loader
    arguments: bool = False
    """Whether records have arguments."""


@dataclass(frozen=True, slots=True)
class ModeSpec:
    """One mode. Texts are Markdown, for docs/modes.md."""

    mode: Mode
    needs: str
    sees: str
    make: Callable[[Host], Source]
    """Makes a source, not started yet. It imports the source's module, so that unused modes take no memory."""
    probe: Callable[[Host], None]
    """Raises `ModeUnavailable` if a cheap check finds an obstacle."""
    fills: Mapping[Fact, str]
    """How well it provides each fact; facts that it cannot provide are left out."""
    losses: frozenset[Lost]
    """Reasons of loss that can occur in it, besides `SWITCH_LOSSES`."""
    colour: str
    """Grafana's name of its colour on dashboards."""
    capture_ratio: float
    """Capture ratio below which an alert fires; 0 for a mode that always misses processes."""
    loader: str = ""
    """Module of `loaders` with the mode's privileged part; empty if there is none."""
    loads_programs: bool = False
    """Whether it is based on eBPF."""
    clones_at_once: bool = True
    """Whether it observes each clone as it happens, not later."""
    exact: bool = True
    """Whether it sees every process, however short."""

    @property
    def dates_exits(self) -> bool:
        """Whether it knows when a process exited, not only when it noticed the exit."""
        return Fact.EXIT_TIMES in self.fills


SWITCH_LOSSES = frozenset({Lost.SWITCH_GAP, Lost.SWITCH_UNSURE})
"""Losses that any switch of modes can cause."""


def _ask_loader(mode: Mode) -> Callable[[Host], None]:
    return lambda host: host.loader.probe(mode)


def _list_processes(host: Host) -> None:
    procfs = host.procfs
    try:
        listed = procfs.pids()
    except OSError as error:
        raise ModeUnavailable(f"cannot list {procfs.root}: {error.strerror}") from error
    if not listed:
        raise ModeUnavailable(f"no process in {procfs.root}")


def _ebpf(mode: Mode) -> Callable[[Host], Source]:
    def make(host: Host) -> Source:
        from exporter.sources.ebpf.cpu_audit import CpuAudit  # noqa: PLC0415
        from exporter.sources.ebpf.source import EbpfSource  # noqa: PLC0415

        return EbpfSource(mode, host.scale, lambda: host.loader.load(mode), CpuAudit(host.procfs))

    return make


def _netlink(host: Host) -> Source:
    from exporter.kernel.netlink_sockets import Sockets  # noqa: PLC0415
    from exporter.sources.netlink.source import NetlinkSource  # noqa: PLC0415

    return NetlinkSource(host.scale, host.procfs, lambda: Sockets.from_handover(host.loader.load(Mode.NETLINK)), arguments=host.arguments)


def _fast_scan(host: Host) -> Source:
    from exporter.sources.scan.fast import FastScanSource  # noqa: PLC0415

    options = host.detection.fast_scan
    return FastScanSource(host.scale, host.procfs, round(options.interval_seconds * NS), options.cpu_share, arguments=host.arguments)


def _scan(host: Host) -> Source:
    from exporter.sources.scan.slow import ScanSource  # noqa: PLC0415

    return ScanSource(host.scale, host.procfs, round(host.detection.scan.interval_seconds * NS), arguments=host.arguments)


_EBPF_FILLS = {
    Fact.PROCESSES: "exact",
    Fact.NAMES: "exact",
    Fact.PARENTS: "exact",
    Fact.SPAWNERS: "exact",
    Fact.USERS: "exact",
    Fact.OWNERS: "exact",
    Fact.OWNER_CPU: "precise",
    Fact.OUTCOMES: "exact",
    Fact.CORE_DUMPS: "exact",
    Fact.EXECS: "exact",
    Fact.KILLS: "exact",
    Fact.SIGNALS: "exact",
    Fact.CPU: "precise",
    Fact.EXIT_TIMES: "exact",
    Fact.PROGRAM_STATISTICS: "by program",
    Fact.RECORD_USER: "yes",
    Fact.RECORD_EXE: "yes",
    Fact.RECORD_CGROUP: "yes",
    Fact.RECORD_CPU: "precise, if freed within 250 ms",
    Fact.RECORD_LINEAGE: "exact up to the spawner; above it, at most 1 s old",
    Fact.RECORD_OOM: "exact",
}
_FULL_MAPS = {Lost.NAME_BUSY, Lost.EXIT_NOTES_FULL, Lost.EXES_FULL, Lost.ORIGINS_FULL}
_EBPF_LOSSES = frozenset({Lost.PROGRAM_MISSED, Lost.CPU_NEVER_CAME, *_FULL_MAPS})
_WITH_FEXIT = "exact, if the kernel allows fexit"
_WITH_HEADERS = "with the kernel's headers"

_SCAN_FILLS = {
    Fact.PROCESSES: "those observed",
    Fact.NAMES: "as last read",
    Fact.PARENTS: "if still known",
    Fact.SPAWNERS: "if all ancestors are still known",
    Fact.USERS: "effective user, as last read",
    Fact.OWNERS: "as last read",
    Fact.OWNER_CPU: "lower bound",
    Fact.CPU: "lower bound",
    Fact.SCAN_DURATION: "yes",
    Fact.RECORD_USER: "effective user, as last read",
    Fact.RECORD_CGROUP: "as last read",
    Fact.RECORD_CPU: "lower bound",
    Fact.RECORD_ARGUMENTS: "as last read",
    Fact.RECORD_LINEAGE: "if still known",
}
_SCAN_LOSSES = frozenset({Lost.UNSEEN, Lost.VANISHED, Lost.UNREADABLE, Lost.MALFORMED})

MODES = (
    ModeSpec(
        Mode.EBPF_CORE,
        needs="kernel 5.8 or later with BTF; root, or CAP_BPF and CAP_PERFMON; `libbpf.so.1`",
        sees="every process, exactly",
        make=_ebpf(Mode.EBPF_CORE),
        probe=_ask_loader(Mode.EBPF_CORE),
        fills={
            **_EBPF_FILLS,
            Fact.RECORD_ARGUMENTS: "exact, up to 512 bytes",
            Fact.FORK_FAILURES: _WITH_FEXIT,
            Fact.EXEC_FAILURES: _WITH_FEXIT,
            Fact.OOM_KILLS: "exact",
            Fact.OWNER_OOM_KILLS: "exact",
            Fact.EVENTS: "exact",
        },
        losses=_EBPF_LOSSES,
        colour="green",
        capture_ratio=0.99,
        loader="exporter.loaders.core",
        loads_programs=True,
    ),
    ModeSpec(
        Mode.EBPF_BCC,
        needs="kernel 4.18 or later; root; the package `python3-bpfcc` of Debian or Ubuntu",
        sees="every process, exactly; outcomes and CPU only where the kernel's headers are installed",
        make=_ebpf(Mode.EBPF_BCC),
        probe=_ask_loader(Mode.EBPF_BCC),
        fills={
            **{fact: text for fact, text in _EBPF_FILLS.items() if fact is not Fact.OWNER_CPU},
            Fact.PARENTS: "exact; `unknown` for orphans",
            Fact.SPAWNERS: "exact; without the kernel's headers `unknown` for orphans",
            Fact.OWNERS: "exact; `unknown` where only cgroup v1 is mounted",
            Fact.OUTCOMES: _WITH_HEADERS,
            Fact.CORE_DUMPS: _WITH_HEADERS,
            Fact.KILLS: _WITH_HEADERS,
            Fact.CPU: _WITH_HEADERS,
            Fact.RECORD_CPU: _WITH_HEADERS,
            Fact.RECORD_LINEAGE: "parent and spawner",
            Fact.RECORD_OOM: _WITH_HEADERS,
        },
        losses=_EBPF_LOSSES | {Lost.LIVE_PROCESSES_FULL},
        colour="dark-green",
        capture_ratio=0.99,
        loader="exporter.loaders.bcc",
        loads_programs=True,
    ),
    ModeSpec(
        Mode.NETLINK,
        needs="the host's pid, user and network namespaces; before about Linux 6.6 also CAP_NET_ADMIN",
        sees="every process; all names and CPU only with CAP_NET_ADMIN",
        make=_netlink,
        probe=_ask_loader(Mode.NETLINK),
        fills={
            Fact.PROCESSES: "exact",
            Fact.NAMES: "exact; without CAP_NET_ADMIN 70 to 90 %, else `unknown`",
            Fact.PARENTS: "exact",
            Fact.SPAWNERS: "exact; `unknown` if the new parent of an orphan cannot be read",
            Fact.USERS: "with CAP_NET_ADMIN",
            Fact.OWNERS: "of the parent, or as read after the exec",
            Fact.OWNER_CPU: "by clock ticks, with CAP_NET_ADMIN",
            Fact.OUTCOMES: "exact",
            Fact.CORE_DUMPS: "exact",
            Fact.EXECS: "exact; of several at once only the last one's name",
            Fact.KILLS: "exact",
            Fact.CPU: "by clock ticks, with CAP_NET_ADMIN",
            Fact.EXIT_TIMES: "exact",
            Fact.RECORD_USER: "with CAP_NET_ADMIN",
            Fact.RECORD_CGROUP: "of the parent, or as read after the exec",
            Fact.RECORD_CPU: "by clock ticks, with CAP_NET_ADMIN",
            Fact.RECORD_ARGUMENTS: "if read in time after the exec",
            Fact.RECORD_LINEAGE: "exact; `unknown` if the new parent of an orphan cannot be read",
        },
        losses=frozenset({Lost.CPU_NEVER_CAME, Lost.OVERRUN, Lost.NAME_RACE, Lost.UNREADABLE, Lost.MALFORMED}),
        colour="blue",
        capture_ratio=0.95,
        loader="exporter.loaders.netlink",
    ),
    ModeSpec(
        Mode.FAST_SCAN,
        needs="nothing",
        sees="processes that live for 5 ms or longer, at moderate rates; no outcomes",
        make=_fast_scan,
        probe=_list_processes,
        fills=_SCAN_FILLS,
        losses=_SCAN_LOSSES,
        colour="orange",
        capture_ratio=0,
        clones_at_once=False,
        exact=False,
    ),
    ModeSpec(
        Mode.SCAN,
        needs="nothing",
        sees="processes that live longer than its interval (1 s); no outcomes",
        make=_scan,
        probe=_list_processes,
        fills=_SCAN_FILLS,
        losses=_SCAN_LOSSES,
        colour="red",
        capture_ratio=0,
        clones_at_once=False,
        exact=False,
    ),
)
SPECS = {spec.mode: spec for spec in MODES}


def loader_settings(config: Config, subscriptions: Sequence[Subscription] = ()) -> Settings:
    """Return the settings of a loader for all modes. `subscriptions` are those besides the handlers'."""
    modules = {spec.mode: spec.loader for spec in MODES if spec.loader}
    detection = config.detection
    failed_starts = FailedStarts(detection.failed_starts)
    interpreter, arguments = detection.ebpf_bcc.interpreter, config.records.tell_arguments
    comms = config.metrics.max_comms
    events = wanted_events((*of_handlers(config), *subscriptions))
    return Settings(config.runtime_scale, config.procfs, interpreter, config.by_origin, arguments, comms, failed_starts, events, modules)
