"""Every option: its default, what it may hold and what it means. The file, the flags and the JSON schema all rest on this declaration.

`python -m exporter.config.options` prints the schema.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from exporter.config import address
from exporter.config.checks import Schema, boolean, duration, integer, keywords, list_of, number, one_of, rising, text
from exporter.config.sections import document, group, option, required, section
from exporter.model import MAX_BOUNDS, NS, Mode, Outcome, RuntimeScale

AUTO = "auto"
RESERVED_PATHS = ("/-/healthy", "/-/ready", "/api/v1/short-processes", "/api/v1/stream")

_BELOW_A_SECOND = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)
_BUCKETS = (*_BELOW_A_SECOND, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)


@dataclass(frozen=True, slots=True)
class EbpfBcc:
    interpreter: str = option(
        "",
        text("the absolute path of a Python interpreter, or nothing", r"(/[ -~]+)?"),
        "Python interpreter that has bcc; empty to look for one. It is run as root.",
    )


@dataclass(frozen=True, slots=True)
class FastScan:
    interval_seconds: float = option(0.1, duration(0.02, 1), "Seconds from one scan of /proc to the next.")
    cpu_share: float = option(0.05, number(0.005, 0.5), "Most CPU that looking for new processes may use, as a share of one core.")


@dataclass(frozen=True, slots=True)
class Scan:
    interval_seconds: float = option(1.0, duration(0.1, 10), "Seconds from one scan of /proc to the next.")


@dataclass(frozen=True, slots=True)
class Detection:
    mode: str = option(AUTO, one_of(AUTO, *Mode), "How processes are seen; auto takes the best mode that works.")
    short_threshold_seconds: float = option(1.0, duration(0, 3600, above=True), "A process that lived less long than this is short.")
    retry_seconds: float = option(60.0, duration(1, 86400), "How often better modes than the active one are tried again.")
    ebpf_bcc: EbpfBcc = group(EbpfBcc, "Options of the mode ebpf_bcc.")
    fast_scan: FastScan = group(FastScan, "Options of the mode fast_scan.")
    scan: Scan = group(Scan, "Options of the mode scan.")


@dataclass(frozen=True, slots=True)
class Metrics:
    runtime_buckets_seconds: tuple[float, ...] = option(
        _BUCKETS,
        rising(duration(1 / NS, 1e9), MAX_BOUNDS, parts_of_one=NS),
        "Upper bounds of the runtime histogram's buckets, in seconds, rising.",
    )
    max_comms: int = option(60, integer(1, 1000), "Most comms that have series of their own; the others count as other.")
    new_series_hold_seconds: float = option(60.0, duration(0, 3600), "How long a new comm is exposed at 0 before its true value.")
    per_comm_histogram: bool = option(False, boolean(), "Expose a histogram of runtimes for each comm too.")


@dataclass(frozen=True, slots=True)
class Records:
    capacity: int = option(1000, integer(0, 100_000), "How many records of single short processes are kept; 0 for none.")


@dataclass(frozen=True, slots=True)
class Web:
    listen_address: str = option(":10199", text(address.WANTED, address.PATTERN, address.refusal), "Where to listen.")
    telemetry_path: str = option(
        "/metrics",
        text(
            "a path that starts with one / and goes on in printable ASCII without space, ? and #",
            r"""/[!"$-.0->@-~][!"$->@-~]*""",
            lambda path: f"is taken (taken are /, {', '.join(RESERVED_PATHS)})" if path in RESERVED_PATHS else None,
        ),
        "Path of the metrics.",
    )
    config_file: str = option(
        "",
        text("the path of a file, or nothing", r"[^\0]*"),
        "Web configuration, as of other exporters: TLS, users, headers, rate limit. Empty for none.",
    )
    public_records: bool = option(
        False,
        boolean(),
        "Show names and records of processes on the page /, its API and its stream to everyone, not only to the host itself and to who "
        "authenticates.",
    )


@dataclass(frozen=True, slots=True)
class Security:
    drop_privileges: bool = option(True, boolean(), "Give up every privilege once the exporter has started.")
    user: str = option(
        "",
        text("the name or the number of a user, or nothing", r"([a-z_][a-z0-9_-]{0,31}|[0-9]{1,10})?"),
        "User to become where it is started as root; empty for shortproc-exporter, if there is one, else nobody.",
    )


@dataclass(frozen=True, slots=True)
class Log:
    level: str = option("info", one_of("debug", "info", "warn", "error"), "Least severe level that is logged.")
    format: str = option("logfmt", one_of("logfmt", "json"), "Form of a log line.")


_GLOBS = list_of(text("a glob, such as make or python*", r".+"), 100)
_ABSOLUTE = r"/.+[^/]"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records are wanted: those that satisfy every key that is given."""

    comm: tuple[str, ...] = option((), _GLOBS, "Globs, one of which matches the comm.")
    parent: tuple[str, ...] = option((), _GLOBS, "Globs, one of which matches the parent's comm.")
    exe: tuple[str, ...] = option((), _GLOBS, "Globs, one of which matches the path of the executable.")
    uid: tuple[int, ...] = option((), list_of(integer(0, 2**32 - 2), 100), "Real user ids.")
    outcome: tuple[str, ...] = option((), list_of(one_of(*Outcome), len(Outcome)), "How the process ended.")
    min_runtime_seconds: float = option(0.0, duration(0, 3600), "It lived at least so long.")
    max_runtime_seconds: float = option(3600.0, duration(0, 3600), "It lived at most so long.")


@dataclass(frozen=True, slots=True)
class HandlerConfig:
    name: str = required(
        text("module:name, such as mymodule:Handler", r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"), "Module and class, as module:name."
    )
    path: tuple[str, ...] = option(
        (), list_of(text("an absolute path", _ABSOLUTE), 10), "Directories to import it from; none: installed packages."
    )
    filter: Filter = group(Filter, "Which records it gets; all by default.")
    options: dict[str, Any] = field(
        default_factory=dict, metadata={"check": keywords(), "about": "What its class is called with, as keyword arguments."}
    )
    timeout_seconds: float = option(5.0, duration(0.1, 600), "Longest that one call may take.")


_SINK_PATH = text("the absolute path of a file, or nothing", rf"({_ABSOLUTE})?")
_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Jsonl:
    path: str = option("", _SINK_PATH, "File, one JSON object a line; empty for none.")
    max_bytes: int = option(100 << 20, integer(1 << 20, 1 << 40), "Size at which the file is rotated.")
    max_age_seconds: float = option(_DAY, duration(60, 366 * _DAY), "Age at which the file is rotated.")
    keep: int = option(7, integer(1, 1000), "How many rotated files are kept.")
    filter: Filter = group(Filter, "Which records it gets; all by default.")


@dataclass(frozen=True, slots=True)
class Sqlite:
    path: str = option("", _SINK_PATH, "SQLite database; empty for none.")
    max_bytes: int = option(1 << 30, integer(1 << 20, 1 << 40), "Size above which the oldest records are deleted.")
    max_age_seconds: float = option(7 * _DAY, duration(60, 3660 * _DAY), "Age above which records are deleted.")
    filter: Filter = group(Filter, "Which records it gets; all by default.")


@dataclass(frozen=True, slots=True)
class Sinks:
    jsonl: Jsonl = group(Jsonl, "Records as lines of JSON.")
    sqlite: Sqlite = group(Sqlite, "Records in a database.")


@dataclass(frozen=True, slots=True)
class Config:
    detection: Detection = group(Detection, "How processes are seen.")
    metrics: Metrics = group(Metrics, "What is exposed.")
    handlers: tuple[HandlerConfig, ...] = option(
        (), list_of(section(HandlerConfig), 16), "Python code that gets the record of each short process."
    )
    sinks: Sinks = group(Sinks, "Where records of short processes are kept.")
    records: Records = group(Records, "Records of single short processes.")
    web: Web = group(Web, "How it is served.")
    security: Security = group(Security, "What the exporter may do.")
    log: Log = group(Log, "What is logged, to standard error.")
    procfs: str = "/proc"
    no_ebpf: bool = False

    @property
    def runtime_scale(self) -> RuntimeScale:
        """What every source sorts runtimes by."""
        return RuntimeScale(
            threshold_ns=max(1, round(self.detection.short_threshold_seconds * NS)),
            bounds_ns=tuple(round(bound * NS) for bound in self.metrics.runtime_buckets_seconds),
            per_comm_buckets=self.metrics.per_comm_histogram,
        )


def schema() -> Schema:
    """Make the JSON schema of the file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "shortproc-exporter"} | document(Config).schema


if __name__ == "__main__":
    import json

    print(json.dumps(schema(), indent=2))  # noqa: T201
