"""The words and values that every part of the exporter shares, and the ledger of totals.

Imports nothing of ours.

Units: times are nanoseconds in `int`, so that sums stay exact; they become seconds only where they are shown.
A comm is `bytes` as the kernel keeps it (at most 15); it becomes text only through `comm_text`.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import StrEnum

NS = 1_000_000_000
FOREVER_NS = 2**64 - 1
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
    """Ended by a signal."""
    UNKNOWN = "unknown"
    """The mode could not tell."""


class Lost(StrEnum):
    """Why something could not be seen, timed, charged or named. What stands below each is printed in docs/metrics.md."""

    PROGRAM_MISSED = "program_missed"
    """The kernel skipped a run of a BPF program, so one event was not counted. Kernels before 5.12 don't say."""
    NAME_BUSY = "name_busy"
    """Only the name: the comm could not be entered into the kernel's map at that moment. Counted as `other`."""
    EXIT_NOTES_FULL = "cpu_marks_full"
    """The right place of a CPU time: more than 4,096 long-lived, multi-threaded or older processes had ended and were not freed yet. Its
    CPU may be missing, incomplete, or counted as a short one's."""
    CPU_NEVER_CAME = "cpu_never_came"
    """The CPU of one process: it exited, but the kernel never reported its release, or later than 2 s after a switch of modes. Its exit is
    counted."""
    LIVE_PROCESSES_FULL = "births_full"
    """A process that started when 65,536 others lived already: its end is not counted."""
    EXES_FULL = "exes_full"
    """Only the path of an executable in records: 16,384 processes that had called exec lived already."""
    OVERRUN = "overrun"
    """Clones whose events the kernel dropped, since they came faster than they were read, and ends so lost of processes that were known."""
    NAME_RACE = "name_race"
    """Only the name: the process had gone before it could be read. Counted as `unknown`."""
    SWITCH_GAP = "switch_gap"
    """Clones from the last moment that a mode was known to work, until the one after it ran. Some of them may have been counted."""
    SWITCH_UNSURE = "switch_unsure"
    """Events so close to a switch of modes that two modes may have dated them differently: they may be counted twice or not at all, though
    hardly any is. To or from `netlink`, those within 10 ms; to or from a scan, those of its look at that moment."""
    UNSEEN = "unseen"
    """A clone that the kernel counted and the scan never noticed."""
    VANISHED = "vanished"
    """A process that was found and had gone before it could be read."""
    UNREADABLE = "unreadable"
    """A process whose `/proc` entry may not be read (`hidepid`, for one)."""
    MALFORMED = "malformed"
    """A `/proc` entry or a netlink message that does not hold what the kernel writes."""


class SwitchReason(StrEnum):
    """Why a mode became the active one. What stands below each is printed in docs/metrics.md."""

    START = "start"
    """The best mode wanted, at start."""
    UNAVAILABLE = "unavailable"
    """At start; no better wanted mode could run."""
    FAILED = "failed"
    """The mode before it broke."""
    RECOVERED = "recovered"
    """It is better than the mode before it, and works again (tried each `detection.retry_seconds`)."""
    CONFIG = "config"
    """A changed configuration asked for it (SIGHUP)."""


class ModeUnavailable(Exception):
    """A mode can't run here. The message is one sentence that a person can act on."""


class SourceFailed(Exception):
    """A running source broke and can see nothing more. The message says how, in one sentence."""


@dataclass(frozen=True, slots=True)
class Gauges:
    """What a source can say of now; `None` or empty is what its mode can't fill."""

    peak_per_second: int | None = None
    """Short exits in the busiest whole second of the last 60, the current one left out."""
    scan_duration_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class RuntimeScale:
    """Below which runtime a process is short, and the buckets of runtimes. The same for every source, fixed at start."""

    threshold_ns: int
    bounds_ns: tuple[int, ...]
    """Rising; a runtime falls into the first bucket whose bound it does not exceed."""
    per_comm_buckets: bool = False


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
