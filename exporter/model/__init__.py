"""The words and values that every part of the exporter shares, and the ledger of totals.

Imports nothing of ours.

Units: times are nanoseconds in `int`, so that sums stay exact; they become seconds only where they are shown.
A comm is `bytes` as the kernel keeps it (at most 15); it becomes text only through `comm_text`.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

NS = 1_000_000_000
FOREVER_NS = 2**64 - 1
RECENT_SECONDS = 60
"""Whole seconds whose short exits sources keep apart."""
MAX_BOUNDS = 31
"""Most bucket bounds that a histogram may have (`bpf/lifecycle.h` holds as many)."""

SIGNALS = {number: signal.Signals(number).name for number in range(1, 32)}
"""Names of the signals that have one; the others are the real-time ones."""

KERNEL_THREADS = b"[kernel]"
UNKNOWN_COMM = b"unknown"
OTHER = "other"


class Mode(StrEnum):
    """Name of a way to observe processes; `supervision/modes.py` says what each is. Best first."""

    EBPF_CORE = "ebpf_core"
    EBPF_BCC = "ebpf_bcc"
    NETLINK = "netlink"
    FAST_SCAN = "fast_scan"
    SCAN = "scan"


class Outcome(StrEnum):
    """How a process ended. What stands below each is printed in docs/metrics.md."""

    position: int
    """Its place in `ProcessCounts.exits`."""

    def __init__(self, _: str) -> None:
        self.position = len(type(self).__members__)

    OK = "ok"
    """Exit code 0."""
    ERROR = "error"
    """Another exit code."""
    SIGNAL = "signal"
    """Killed by a signal."""
    UNKNOWN = "unknown"
    """The mode does not know the outcome."""


class Lost(StrEnum):
    """Why something could not be seen, timed, charged or named. What stands below each is printed in docs/metrics.md."""

    PROGRAM_MISSED = "program_missed"
    """An event: the kernel skipped a run of a BPF program, so it was not counted. Kernels before 5.12 do not report that."""
    NAME_BUSY = "name_busy"
    """Only the command name: it could not be added to the kernel's map at that moment. Counted as `other`."""
    EXIT_NOTES_FULL = "cpu_marks_full"
    """CPU time may be misattributed: more than 4,096 long-lived, multi-threaded or older processes had exited and were not freed yet. The
    CPU time of one may be missing, incomplete, or counted as that of a short process."""
    CPU_NEVER_CAME = "cpu_never_came"
    """The CPU time of a process: it exited, but the kernel never reported its release, or later than 2 s after a switch of modes. Its exit
    is counted."""
    LIVE_PROCESSES_FULL = "births_full"
    """The exit of a process that started when 65,536 others existed."""
    EXES_FULL = "exes_full"
    """Only the path of the executable or the arguments in records: too many other processes started before the record was read."""
    ORIGINS_FULL = "origins_full"
    """Only the cgroup, user, parent and spawner: 8,192 combinations of them were seen within a second or two. Counted as `other`."""
    OVERRUN = "overrun"
    """Clones whose events the kernel dropped, because they were not read fast enough, and exits of known processes lost in the same way."""
    NAME_RACE = "name_race"
    """Only the command name: the process was gone before the name could be read. Counted as `unknown`."""
    SWITCH_GAP = "switch_gap"
    """Clones between the last moment that a mode was known to work and the start of the next mode. Some of them may have been counted."""
    SWITCH_UNSURE = "switch_unsure"
    """Events close to a switch that may be double-counted or missed, because the two modes may time them differently. Few of them are. To
    or from `netlink`: events within 10 ms of the switch. To or from a scan: events found by its scan at that moment."""
    UNSEEN = "unseen"
    """A clone that was counted by the kernel, but not observed by the scan."""
    VANISHED = "vanished"
    """A process that was found, but was gone before it could be read."""
    UNREADABLE = "unreadable"
    """A process whose `/proc` entry cannot be read, for example because of `hidepid`."""
    MALFORMED = "malformed"
    """A `/proc` entry or netlink message that cannot be parsed."""

    @property
    def detail(self) -> str:
        """Return what is missing of an event that was counted all the same; empty if the event itself was lost, or may be."""
        return _DETAILS.get(self, "")


_DETAILS = {
    Lost.NAME_BUSY: "command name",
    Lost.EXIT_NOTES_FULL: "CPU time",
    Lost.CPU_NEVER_CAME: "CPU time",
    Lost.EXES_FULL: "path or arguments in a record",
    Lost.ORIGINS_FULL: "owner, user, parent and spawner",
    Lost.NAME_RACE: "command name",
}


class SwitchReason(StrEnum):
    """Why a mode became the active one. What stands below each is printed in docs/metrics.md."""

    START = "start"
    """Start in the preferred mode."""
    UNAVAILABLE = "unavailable"
    """Start in another mode, because no better one could run."""
    FAILED = "failed"
    """The previous mode failed."""
    RECOVERED = "recovered"
    """A better mode works again (retried every `detection.retry_seconds`)."""
    CONFIG = "config"
    """A changed configuration selects the mode (SIGHUP)."""


class ModeUnavailable(Exception):
    """A mode can't run here. The message is one sentence that a person can act on."""


class SourceFailed(Exception):
    """A running source broke and can see nothing more. The message says how, in one sentence."""


@dataclass(frozen=True, slots=True)
class Gauges:
    """What a source can say of now; `None` or empty is what its mode can't fill."""

    short_exits: Mapping[int, int] | None = None
    """Short exits in each of the last 60 whole seconds of the monotonic clock; without the current one, and without those that had none."""
    scan_duration_seconds: float | None = None

    @property
    def peak_per_second(self) -> int | None:
        """Return the short exits in the busiest of these seconds."""
        return None if self.short_exits is None else max(self.short_exits.values(), default=0)

    def with_short_exits(self, more: Mapping[int, int]) -> Gauges:
        """Return the same with the short exits of another source added."""
        mine = self.short_exits or {}
        return replace(self, short_exits={second: mine.get(second, 0) + more.get(second, 0) for second in mine.keys() | more.keys()})


@dataclass(frozen=True, slots=True)
class RuntimeScale:
    """Below which runtime a process is short, and the buckets of runtimes. The same for every source, fixed at start."""

    threshold_ns: int
    bounds_ns: tuple[int, ...]
    """Rising; a runtime falls into the first bucket whose bound it does not exceed."""
    per_comm_buckets: bool = False
    lifetimes: int | None = None
    """The schema in which native histograms are counted (exporter/model/lifetimes.py); None without them."""


def comm_text(comm: bytes) -> str:
    r"""A comm as text that is safe to show, and different for different comms.

    A backslash is doubled; a byte that is not UTF-8 or a character that does not print becomes `\xNN` or `\uNNNN`.
    """
    text = comm.decode("utf-8", "surrogateescape")
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_escaped(char) for char in text)


def _escaped(char: str) -> str:
    if char == "\\":
        return "\\\\"
    if char.isprintable():
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape's form of a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
