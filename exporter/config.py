"""Every option: its default, what it may hold and what it means. The file, the flags and the JSON schema all rest on this declaration.

`python -m exporter.config` prints the schema.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from exporter import checks
from exporter.checks import Check, Schema, Wrong, boolean, directory, integer, number, one_line, one_of, rising, text
from exporter.model import MAX_BOUNDS, NS, Measures, Mode
from exporter.web import address

AUTO = "auto"
RESERVED_PATHS = ("/-/healthy", "/-/ready")

_MAX_BYTES = 1 << 20
_BELOW_A_SECOND = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)
_BUCKETS = (*_BELOW_A_SECOND, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)


class ConfigError(Exception):
    """The configuration can't be used. The message is one line."""


def option(default: Any, check: Check, about: str) -> Any:
    """Declare an option of the file."""
    return field(default=default, metadata={"check": check, "about": about})


def group(of: type[Any], about: str) -> dict[str, Any]:
    """Declare a group of options."""
    return {"check": checks.section(of), "about": about}


@dataclass(frozen=True, slots=True)
class EbpfBcc:
    interpreter: str = option(
        "",
        text("the absolute path of a Python interpreter, or nothing", r"(/[ -~]+)?"),
        "Python interpreter that has bcc; empty to look for one. It is run as root.",
    )


@dataclass(frozen=True, slots=True)
class FastScan:
    interval_seconds: float = option(0.1, number(0.02, 1), "Seconds from one scan of /proc to the next.")
    cpu_share: float = option(0.05, number(0.005, 0.5), "Most CPU that looking for new processes may use, as a share of one core.")


@dataclass(frozen=True, slots=True)
class Scan:
    interval_seconds: float = option(1.0, number(0.1, 10), "Seconds from one scan of /proc to the next.")


@dataclass(frozen=True, slots=True)
class Detection:
    mode: str = option(AUTO, one_of(AUTO, *Mode), "How processes are seen; auto takes the best mode that works.")
    short_threshold_seconds: float = option(1.0, number(0, 3600, above=True), "A process that lived less long than this is short.")
    retry_seconds: float = option(60.0, number(1, 86400), "How often better modes than the active one are tried again.")
    ebpf_bcc: EbpfBcc = field(default_factory=EbpfBcc, metadata=group(EbpfBcc, "Options of the mode ebpf_bcc."))
    fast_scan: FastScan = field(default_factory=FastScan, metadata=group(FastScan, "Options of the mode fast_scan."))
    scan: Scan = field(default_factory=Scan, metadata=group(Scan, "Options of the mode scan."))


@dataclass(frozen=True, slots=True)
class Metrics:
    runtime_buckets_seconds: tuple[float, ...] = option(
        _BUCKETS,
        rising(number(1 / NS, 1e9), MAX_BOUNDS, parts_of_one=NS),
        "Upper bounds of the runtime histogram's buckets, in seconds, rising.",
    )
    max_comms: int = option(60, integer(1, 1000), "Most comms that have series of their own; the others count as other.")
    new_series_hold_seconds: float = option(60.0, number(0, 3600), "How long a new comm is exposed at 0 before its true value.")
    per_comm_histogram: bool = option(False, boolean(), "Expose a histogram of runtimes for each comm too.")


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
    public_records: bool = option(False, boolean(), "Show names of processes on the page / to everyone, not only to the host itself.")


@dataclass(frozen=True, slots=True)
class Log:
    level: str = option("info", one_of("debug", "info", "warn", "error"), "Least severe level that is logged.")
    format: str = option("logfmt", one_of("logfmt", "json"), "Form of a log line.")


@dataclass(frozen=True, slots=True)
class Config:
    detection: Detection = field(default_factory=Detection, metadata=group(Detection, "How processes are seen."))
    metrics: Metrics = field(default_factory=Metrics, metadata=group(Metrics, "What is exposed."))
    web: Web = field(default_factory=Web, metadata=group(Web, "How it is served."))
    log: Log = field(default_factory=Log, metadata=group(Log, "What is logged, to standard error."))
    procfs: str = "/proc"
    no_ebpf: bool = False

    @property
    def measures(self) -> Measures:
        """What every source measures by."""
        return Measures(
            threshold_ns=max(1, round(self.detection.short_threshold_seconds * NS)),
            bounds_ns=tuple(round(bound * NS) for bound in self.metrics.runtime_buckets_seconds),
            per_comm_buckets=self.metrics.per_comm_histogram,
        )


_FLAG_ONLY: dict[str, Check] = {"procfs": directory(), "no_ebpf": boolean()}


def load(path: str) -> Config:
    """Read a file, or raise `ConfigError`."""
    from exporter import yamlfile  # noqa: PLC0415 - yaml costs memory, and many run without a file

    name = one_line(path) or "''"
    try:
        settings: Config = checks.section(Config).read(yamlfile.parse(_read(path, name)))
    except Wrong as wrong:
        raise ConfigError(f"{name}: {wrong.at or 'top level'}: {wrong.reason}") from None
    except yamlfile.BadYaml as bad:
        raise ConfigError(f"{name}: {one_line(str(bad))}") from None
    return settings


def override(config: Config, key: str, value: object, name: str) -> Config:
    """Replace one option; `name` is what a message calls it."""
    try:
        replaced: Config = _replaced(config, key.split("."), value)
    except Wrong as wrong:
        raise ConfigError(f"{name}: {wrong.reason}") from None
    return replaced


def after_reload(running: Config, fresh: Config) -> tuple[Config, list[str]]:
    """Return what holds once `fresh` was read while `running` did, and the keys whose change waits for a restart."""
    detection = replace(fresh.detection, short_threshold_seconds=running.detection.short_threshold_seconds)
    config = replace(running, detection=detection, log=fresh.log)
    return config, _different(config, fresh)


def _different(one: Any, other: Any) -> list[str]:
    names: list[str] = []
    for each in fields(one):
        mine, theirs = getattr(one, each.name), getattr(other, each.name)
        if is_dataclass(mine):
            names += (f"{each.name}.{name}" for name in _different(mine, theirs))
        elif mine != theirs:
            names.append(each.name)
    return names


def schema() -> Schema:
    """Make the JSON schema of the file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "shortproc-exporter"} | checks.section(Config).schema


def _replaced(node: Any, keys: list[str], value: object) -> Any:
    name, *rest = keys
    if rest:
        return replace(node, **{name: _replaced(getattr(node, name), rest, value)})
    check = _FLAG_ONLY.get(name) or checks.options_of(type(node))[name]
    return replace(node, **{name: check.read(value)})


def _read(path: str, name: str) -> str:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - to pathlib, no name at all is the current folder
            data = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{name}: cannot be read: {reason.lower()}") from None
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"{name}: larger than {_MAX_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}: line {line}: not UTF-8") from None


if __name__ == "__main__":
    import json

    print(json.dumps(schema(), indent=2))  # noqa: T201
