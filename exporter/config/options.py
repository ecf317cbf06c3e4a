"""Declares every option: its default, its allowed values and its meaning.

Flags and their help, config/exporter.yml and config/schema.json are made from these declarations (`make docs`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal

from exporter.config import address, checks
from exporter.config.checks import boolean, duration, integer, keywords, list_of, number, one_of, rising, size, text
from exporter.config.globs import GLOBS
from exporter.config.sections import flag_only, group, groups, option, required
from exporter.model import MAX_BOUNDS, NS, Mode, Outcome, RuntimeScale, lifetimes
from exporter.model.arguments import Wanted
from exporter.model.dimensions import BY_ORIGIN, DIMENSIONS, Dimension
from exporter.model.events import EventKind
from exporter.model.failures import FailedStarts

AUTO = "auto"
RESERVED_PATHS = ("/-/healthy", "/-/ready", "/api/v1/short-processes", "/api/v1/busiest", "/api/v1/stream")

_ABSOLUTE = r"/.+[^/]"
_BELOW_A_SECOND = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)
_BUCKETS = (*_BELOW_A_SECOND, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)


@dataclass(frozen=True, slots=True)
class EbpfBcc:
    interpreter: str = option(
        "",
        text("an absolute path or empty", r"(/[ -~]+)?"),
        "Python interpreter that has bcc (Debian and Ubuntu: package python3-bpfcc). It runs as root. Empty: search for one.",
    )


@dataclass(frozen=True, slots=True)
class FastScan:
    interval_seconds: float = option(0.1, duration(0.02, 1), "Time from one scan of /proc to the next.")
    cpu_share: float = option(
        0.05, number(0.005, 0.5), "Maximum CPU for finding new processes, as a share of one core. With more CPU it sees shorter runtimes."
    )


@dataclass(frozen=True, slots=True)
class Scan:
    interval_seconds: float = option(1.0, duration(0.1, 10), "Time from one scan of /proc to the next.")


@dataclass(frozen=True, slots=True)
class Detection:
    mode: str = option(
        AUTO,
        one_of(AUTO, *Mode),
        "How processes are observed. auto picks the best mode that works, falls back when it fails, and retries better ones. "
        "The name of a mode forces it: the exporter exits with the reason if that mode cannot run.",
        flag="--mode MODE",
    )
    short_threshold_seconds: float = option(
        1.0, duration(0, 3600, above=True), "A process whose runtime, from fork to exit, is below this is short."
    )
    retry_seconds: float = option(60.0, duration(1, 86400), "How often better modes than the active one are retried.")
    failed_starts: str = option(
        FailedStarts.AUTO,
        one_of(*FailedStarts),
        "Whether failed forks and execs are counted (mode ebpf_core). auto: unless detaching the programs for it can hang the kernel, "
        "which a bug before Linux 6.9 makes possible (docs/modes.md). always: on those kernels too. never: on none.",
    )
    ebpf_bcc: EbpfBcc = group(EbpfBcc, "Options of the mode ebpf_bcc.")
    fast_scan: FastScan = group(FastScan, "Options of the mode fast_scan.")
    scan: Scan = group(Scan, "Options of the mode scan.")


@dataclass(frozen=True, slots=True)
class Metrics:
    runtime_buckets_seconds: tuple[float, ...] = option(
        _BUCKETS,
        rising(duration(1 / NS, 1e9), MAX_BOUNDS, parts_of_one=NS),
        "Upper bounds of the buckets of shortproc_process_runtime_seconds.",
    )
    max_comms: int = option(
        60, integer(1, 1000), 'Maximum number of command names (comms) that have their own series. Others are counted under comm="other".'
    )
    new_series_hold_seconds: float = option(
        60.0,
        duration(0, 3600),
        "How long a new comm is exposed at 0 before its true value, so that Prometheus sees the increase. Use two scrape intervals.",
    )
    per_comm_histogram: bool = option(
        False,
        boolean(),
        "Expose a runtime histogram for each comm too (shortproc_comm_runtime_seconds). It adds a series for each comm and bucket.",
    )
    native_histograms: Literal["auto", "off"] = option(
        "auto",
        one_of("auto", "off"),
        "Native histograms of runtimes, whole and for each comm (shortproc_*_lifetime_seconds): one series each. auto: for a Prometheus "
        "that asks for them, with scrape_native_histograms or --enable-feature=native-histograms.",
    )
    native_histogram_schema: int = option(
        lifetimes.COARSE,
        integer(0, lifetimes.FINE),
        "Resolution of native histograms: 2^schema buckets for each power of two. 3: bounds are 9% apart. 0: each is twice the one before. "
        "4: 4.4% apart, for 1.6 MiB more of kernel memory in the eBPF modes.",
    )

    @property
    def native_schema(self) -> int | None:
        """Return the schema of native histograms; None without them."""
        return self.native_histogram_schema if self.native_histograms == "auto" else None


def _cap(most: int, what: str) -> Any:
    text = f"Maximum number of {what} that have their own series, 0 for no such metrics. Others are counted under `other`."
    return option(most, integer(0, 1000), text)


@dataclass(frozen=True, slots=True)
class Attribution:
    max_owners: int = _cap(40, "owners (systemd units, containers, pods)")
    max_owner_comms: int = _cap(40, "pairs of an owner and a command name")
    max_spawners: int = _cap(20, "spawners (nearest ancestors that are not short-lived)")
    max_users: int = _cap(15, "users")
    max_parents: int = _cap(20, "parents")
    pods: Literal["pod", "workload", "none"] = option(
        "pod",
        one_of("pod", "workload", "none"),
        "Whether the label pod is the name of the pod, of its workload (without the hash of a ReplicaSet or Job), or empty.",
    )
    passwd_file: str = option(
        "/etc/passwd",
        text("an absolute path", _ABSOLUTE),
        "File with the names of the host's users, as passwd(5). In a container, where the host's is mounted.",
    )


@dataclass(frozen=True, slots=True)
class Records:
    capacity: int = option(1000, integer(0, 100_000), "Number of recent records that are kept in memory; 0 for none.")
    arguments: str = option(
        Wanted.OFF,
        one_of(*Wanted),
        "What records tell of the arguments of a process. off: nothing. names: the program, the names of flags, the script of an "
        "interpreter. full: the first 512 bytes, without secrets in their usual forms; others may remain (docs/security.md).",
    )
    redact: tuple[str, ...] = option(
        (),
        GLOBS,
        "Globs for further secrets in arguments, in either case of letters: for names of flags, variables and headers whose values are "
        "replaced, such as *pin, or for whole words, such as acme-*.",
    )

    @property
    def tell_arguments(self) -> bool:
        """Return whether records have arguments."""
        return self.arguments != Wanted.OFF


@dataclass(frozen=True, slots=True)
class Web:
    listen_address: str = option(
        ":10199",
        text(address.WANTED, address.PATTERN, address.refusal),
        "Address to listen on. :PORT listens on every IPv4 and IPv6 address of the host.",
        flag="--web.listen-address HOST:PORT",
    )
    telemetry_path: str = option(
        "/metrics",
        text(
            "a path: / and printable ASCII without space, ? and #",
            r"""/[!"$-.0->@-~][!"$->@-~]*""",
            lambda path: f"is reserved, as are /, {', '.join(RESERVED_PATHS)}" if path in RESERVED_PATHS else None,
        ),
        "Path of the metrics.",
        flag="--web.telemetry-path PATH",
    )
    config_file: str = option(
        "",
        text("the path of a file or empty", r"[^\0]*"),
        "Web configuration file: TLS, users, headers and rate limit. The format is that of Prometheus' exporters (docs/web-config.md). It "
        "is reloaded when it changes. A relative path starts at the working directory. Empty: none.",
        flag="--web.config.file FILE",
    )
    public_records: bool = option(
        False,
        boolean(),
        "Show records of single processes on the page /, its API and its stream to every client, not only to local and authenticated "
        "ones. Every client sees totals by name, as in the metrics.",
    )


@dataclass(frozen=True, slots=True)
class Security:
    drop_privileges: bool = option(
        True,
        boolean(),
        "Drop all privileges after the start. A small process beside the exporter keeps them, to load eBPF programs again when needed.",
    )
    user: str = option(
        "",
        text("the name or number of a user or empty", r"([a-z_][a-z0-9_-]{0,31}|[0-9]{1,10})?"),
        "User to switch to when started as root. Empty: shortproc-exporter, if that user exists, else nobody. The user must be able to "
        "read this file, or SIGHUP fails.",
    )


@dataclass(frozen=True, slots=True)
class Log:
    level: str = option(
        "info", one_of("debug", "info", "warn", "error"), "Minimum level of messages that are logged.", flag="--log.level LEVEL"
    )
    format: str = option("logfmt", one_of("logfmt", "json"), "Format of log lines.", flag="--log.format FORMAT")


UIDS = list_of(integer(0, 2**32 - 2), 100)
PIDS = list_of(integer(1, 2**22), 100)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records are wanted: those that match every key that is set."""

    comm: tuple[str, ...] = option((), GLOBS, 'Globs of the shell for the comm, such as [make, "python*"]; one of them has to match.')
    parent: tuple[str, ...] = option((), GLOBS, "Globs for the comm of the parent; one of them has to match.")
    exe: tuple[str, ...] = option((), GLOBS, "Globs for the path of the executable; one of them has to match.")
    spawner: tuple[str, ...] = option((), GLOBS, "Globs for the comm of the nearest ancestor that was not short-lived itself.")
    user: tuple[str, ...] = option((), GLOBS, "Globs for the name of the user.")
    unit: tuple[str, ...] = option((), GLOBS, "Globs for the systemd unit, as metrics show it.")
    namespace: tuple[str, ...] = option((), GLOBS, "Globs for the namespace of the pod.")
    pod: tuple[str, ...] = option((), GLOBS, "Globs for the pod.")
    container: tuple[str, ...] = option((), GLOBS, "Globs for the container or machine.")
    cgroup: tuple[str, ...] = option((), GLOBS, "Globs for the path of the cgroup, such as /system.slice/*.")
    uid: tuple[int, ...] = option((), UIDS, "Real user IDs.")
    pid: tuple[int, ...] = option((), PIDS, "Process IDs.")
    ppid: tuple[int, ...] = option((), PIDS, "Process IDs of the parent.")
    outcome: tuple[str, ...] = option((), list_of(one_of(*Outcome), len(Outcome)), "How the process exited.")
    min_runtime_seconds: float = option(0.0, duration(0, 3600), "Minimum runtime.")
    max_runtime_seconds: float = option(3600.0, duration(0, 3600), "Maximum runtime.")


@dataclass(frozen=True, slots=True)
class HandlerConfig:
    name: str = required(
        text("a name of the form module:name", r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"),
        "Python module and class.",
        example="slow_builds:SlowBuilds",
    )
    path: tuple[str, ...] = option(
        (),
        list_of(text("an absolute path", _ABSOLUTE), 10),
        "Directories to import the module from. None: installed packages.",
        example="[/etc/shortproc-exporter/handlers]",
    )
    filter: Filter = group(Filter, "Which records and events it gets, as in sinks.jsonl.filter below.", example="{comm: [make, cc1]}")
    events: tuple[str, ...] = option(
        (),
        list_of(one_of(*EventKind), len(EventKind)),
        "Events of any process that it gets too (mode ebpf_core): fork, exec, exit, signal. None: no program for them is loaded.",
        example="[exec, exit]",
    )
    records: bool = option(True, boolean(), "Get records of short processes. false: only events.")
    options: dict[str, Any] = field(
        default_factory=dict,
        metadata={"check": keywords(), "about": "Keyword arguments of the class.", "example": "{threshold_seconds: 0.5}"},
    )
    timeout_seconds: float = option(5.0, duration(0.1, 600), "Maximum duration of one call.")
    at_once: bool = option(False, boolean(), "Get records at once: without CPU where the kernel tells it after the exit.")


_SINK_PATH = text("an absolute path or empty", rf"({_ABSOLUTE})?")
_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class JsonlOptions:
    path: str = option("", _SINK_PATH, "File, in an existing directory. Empty: no such sink.")
    max_bytes: int = option(100 << 20, size(1 << 20, 1 << 40), "Size at which the file is rotated: it becomes .1, and so on.")
    max_age_seconds: float = option(_DAY, duration(60, 366 * _DAY), "Age of the first record at which the file is rotated.")
    keep: int = option(7, integer(1, 1000), "Number of rotated files that are kept.")
    filter: Filter = group(Filter, "Which records it gets: those that match every key that is set.")


@dataclass(frozen=True, slots=True)
class SqliteOptions:
    path: str = option("", _SINK_PATH, "Database file, in an existing directory. Empty: no such sink.")
    max_bytes: int = option(1 << 30, size(1 << 20, 1 << 40), "Size above which the oldest records are deleted.")
    max_age_seconds: float = option(7 * _DAY, duration(60, 3660 * _DAY), "Age above which records are deleted.")
    filter: Filter = group(Filter, "Which records it gets, as in sinks.jsonl.filter.")


@dataclass(frozen=True, slots=True)
class OtlpOptions:
    endpoint: str = option(
        "",
        text(
            "an http or https URL without user and password, or empty",
            r"(https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[!-\"$-~]*)?)?",
        ),
        "URL that OpenTelemetry logs are sent to, such as http://localhost:4318. Without a path, /v1/logs is added. Empty: no such sink.",
    )
    headers_file: str = option(
        "",
        _SINK_PATH,
        "File with HTTP headers that are sent along, such as a token: lines of the form Name: value. Only the user of the sinks may read "
        "it. It is read again when it changes. Empty: none.",
    )
    compression: str = option("gzip", one_of("gzip", "none"), "Compression of requests.")
    timeout_seconds: float = option(
        10.0, duration(1, 60), "Maximum duration of a request, with its retries. Then it waits, and begins again."
    )
    ca_file: str = option(
        "",
        _SINK_PATH,
        "File with certificates (PEM) that the receiver's is checked against. Empty: the certificate authorities of the system.",
    )
    filter: Filter = group(Filter, "Which records it gets, as in sinks.jsonl.filter.")


@dataclass(frozen=True, slots=True)
class Sinks:
    jsonl: JsonlOptions = group(JsonlOptions, "Records as lines of JSON.")
    sqlite: SqliteOptions = group(SqliteOptions, "Records in an SQLite database.")
    otlp: OtlpOptions = group(OtlpOptions, "Records as OpenTelemetry logs, over HTTP. Needs the OpenTelemetry SDK (docs/handlers.md).")


@dataclass(frozen=True, slots=True)
class Config:
    detection: Detection = group(Detection, "Detection of processes.")
    metrics: Metrics = group(Metrics, "The metrics.")
    attribution: Attribution = group(Attribution, "For whom short processes run: metrics by owner, user, parent and spawner.")
    handlers: tuple[HandlerConfig, ...] = groups(
        HandlerConfig,
        16,
        "Python code that gets the record of each short process (docs/handlers.md). This file, the module and all directories above them "
        "must be writable only by root and the user that the exporter runs as.",
    )
    sinks: Sinks = group(
        Sinks,
        "Where records of short processes are stored or sent. When started as root, sinks run as the owner of their directory, which must "
        "be another user than root, and the only one who can write there (docs/handlers.md):\n"
        "  useradd --system shortproc && install -d -o shortproc -g shortproc -m 0750 /var/lib/shortproc",
    )
    records: Records = group(Records, "Records of short processes, for the page and its API.")
    web: Web = group(Web, "The web server.")
    security: Security = group(Security, "Privileges.")
    log: Log = group(Log, "The log, on standard error.")
    procfs: str = flag_only("/proc", checks.procfs(), "Directory where procfs is mounted.", flag="--path.procfs DIR")
    no_ebpf: bool = flag_only(False, boolean(), "Skip the eBPF modes.", flag="--no-ebpf")

    @property
    def runtime_scale(self) -> RuntimeScale:
        """Return the threshold and the buckets of runtimes, for all sources."""
        shown = self.metrics.native_schema
        return RuntimeScale(
            threshold_ns=max(1, round(self.detection.short_threshold_seconds * NS)),
            bounds_ns=tuple(round(bound * NS) for bound in self.metrics.runtime_buckets_seconds),
            per_comm_buckets=self.metrics.per_comm_histogram,
            lifetimes=None if shown is None else lifetimes.buckets(shown).schema,
        )

    @property
    def caps(self) -> dict[Dimension[Any], int]:
        """Return the maximum number of keys with their own series, for each dimension."""
        return {each: cap for each in DIMENSIONS if (cap := self.value(each.cap))}

    @property
    def by_origin(self) -> bool:
        """Return whether it must be counted for whom processes ran."""
        return not self.caps.keys().isdisjoint(BY_ORIGIN)

    def value(self, key: str) -> Any:
        """The option `key`, such as `metrics.max_comms`."""
        return reduce(getattr, key.split("."), self)
