"""Options: their defaults, what they may be, and what is said of what they may not be."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs import config_files
from docs.__main__ import WHOLE
from exporter.config import durations, loading
from exporter.config.options import RESERVED_PATHS, Config, FastScan, Web
from exporter.config.problems import ConfigError
from exporter.model import MAX_BOUNDS, NS, Mode
from tests.unit.config_files import KEYS, Load, loader, refusal

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    return loader(tmp_path)


def test_defaults_are_the_documented_ones() -> None:
    """Dashboards and the documentation rest on the defaults."""
    default = Config()
    assert default.detection.mode == "auto"
    assert default.web == Web(":10199", "/metrics", public_records=False)
    assert default.metrics.runtime_buckets_seconds[0] == 0.0001
    assert len(default.metrics.runtime_buckets_seconds) == 20
    assert (default.metrics.max_comms, default.metrics.new_series_hold_seconds) == (60, 60.0)
    assert default.detection.fast_scan == FastScan(interval_seconds=0.1, cpu_share=0.05)


def test_shipped_file_says_the_defaults() -> None:
    """The file claims to show every option at its default."""
    path = REPOSITORY / "config" / "exporter.yml"
    assert loading.load(str(path)) == Config()
    written = yaml.safe_load(path.read_text())
    for key in KEYS:
        value = written
        for name in key.split("."):
            assert name in value, f"{key} is missing in config/exporter.yml"
            value = value[name]


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_shipped_is_current(name: str) -> None:
    """Editors check files against the schema, and people copy from the example; `make docs` writes both."""
    assert (REPOSITORY / name).read_text() == WHOLE[name]()


def test_every_default_passes_its_own_check() -> None:
    """A default that the check refuses could not be written into a file."""
    for key in KEYS:
        value: Any = Config()
        for name in key.split("."):
            value = getattr(value, name)
        plain = list(value) if isinstance(value, tuple) else value
        assert loading.override(Config(), key, plain, key) == Config()


@pytest.mark.parametrize(
    "text", ["", "---\n", "# nothing\n", "detection:\nmetrics:\nweb:\nlog:\n", "detection:\n  scan:\n  fast_scan: {}\n", "{}"]
)
def test_empty_sections_are_defaults(load: Load, text: str) -> None:
    """Who comments out all keys of a section wants its defaults."""
    assert load(text) == Config()


def test_values_are_taken(load: Load) -> None:
    """Each kind of value has to reach its place."""
    loaded = load(
        "detection: {mode: scan, short_threshold_seconds: 2, scan: {interval_seconds: 0.5}}\n"
        "metrics: {runtime_buckets_seconds: [0.1, 1, 2.5], max_comms: 7, per_comm_histogram: true}\n"
        'web: {listen_address: "[::1]:9000", telemetry_path: /m, public_records: true}\n'
        "log: {level: warn, format: json}\n"
    )
    assert loaded.detection.mode == Mode.SCAN
    assert loaded.detection.scan.interval_seconds == 0.5
    assert loaded.metrics.runtime_buckets_seconds == (0.1, 1.0, 2.5)
    assert (loaded.metrics.max_comms, loaded.metrics.per_comm_histogram) == (7, True)
    assert (loaded.web.listen_address, loaded.web.telemetry_path, loaded.web.public_records) == ("[::1]:9000", "/m", True)
    assert (loaded.log.level, loaded.log.format) == ("warn", "json")


def test_measures_are_exact_nanoseconds(load: Load) -> None:
    """The kernel compares integers; a bound of 0.00025 s that became 249,999 ns would misplace events."""
    scale = load("detection: {short_threshold_seconds: 0.7}\nmetrics: {per_comm_histogram: true}").runtime_scale
    assert scale.threshold_ns == 700_000_000
    assert scale.per_comm_buckets
    assert scale.bounds_ns[:5] == (100_000, 250_000, 500_000, 1_000_000, 2_500_000)
    assert scale.bounds_ns[-1] == 3_600_000_000_000
    assert load("detection: {short_threshold_seconds: 1.0e-12}").runtime_scale.threshold_ns == 1


@pytest.mark.parametrize(
    ("metrics", "counted"),
    [
        ("", 3),
        ("native_histogram_schema: 0", 3),
        ("native_histogram_schema: 4", 4),
        ("native_histograms: 'off', native_histogram_schema: 4", None),
    ],
)
def test_schema_that_is_counted(load: Load, metrics: str, counted: int | None) -> None:
    """All sources count in one, and buckets that nobody is shown take no memory."""
    assert load(f"metrics: {{{metrics}}}").runtime_scale.lifetimes == counted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metrics: {runtime_buckets_seconds: [0.1, 0.2, 0.5, 0.5]}", "[3]: 0.5 is not greater than the one before it (0.5)"),
        ("metrics: {runtime_buckets_seconds: [0.1, 0.1000000001]}", "[1]: 0.1000000001 is not greater than the one before it (0.1)"),
        ("metrics: {runtime_buckets_seconds: [0, 1]}", "[0]: 0 is not a duration from 1ns to 1000000000s"),
        ("metrics: {runtime_buckets_seconds: [1, .inf]}", "[1]: inf is not a duration from 1ns to 1000000000s"),
        ("metrics: {runtime_buckets_seconds: []}", ": a list of 0 is not a list of 1 to 31 rising values"),
        ("metrics: {runtime_buckets_seconds: 1}", ": 1 is not a list of 1 to 31 rising values"),
        (
            "metrics: {runtime_buckets_seconds: [[1]]}",
            "[0]: a list is not a duration from 1ns to 1000000000s: write for example 0.5 or 500ms",
        ),
    ],
)
def test_bad_buckets(load: Load, text: str, message: str) -> None:
    """One bad bound among 20 has to be pointed at."""
    assert refusal(load, text) == f"metrics.runtime_buckets_seconds{message}"


def test_number_of_buckets_has_a_limit(load: Load) -> None:
    """The kernel's histogram has room for so many bounds."""
    bounds = [*range(1, MAX_BOUNDS + 1)]
    assert len(load(f"metrics: {{runtime_buckets_seconds: {bounds}}}").runtime_scale.bounds_ns) == MAX_BOUNDS
    assert "a list of 32" in refusal(load, f"metrics: {{runtime_buckets_seconds: {[*bounds, 99]}}}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metrics: {max_comms: true}", "metrics.max_comms: true is not an integer from 1 to 1000"),
        ("metrics: {max_comms: 0}", "metrics.max_comms: 0 is not an integer from 1 to 1000"),
        ("metrics: {max_comms: 1001}", "metrics.max_comms: 1001 is not an integer from 1 to 1000"),
        ("metrics: {native_histogram_schema: 5}", "metrics.native_histogram_schema: 5 is not an integer from 0 to 4"),
        ("metrics: {max_comms: 1.0}", "metrics.max_comms: 1.0 is not an integer from 1 to 1000"),
        ("metrics: {max_comms: null}", "metrics.max_comms: null is not an integer from 1 to 1000"),
        ("metrics: {max_comms: {a: 1}}", "metrics.max_comms: a mapping is not an integer from 1 to 1000"),
        (
            "detection: {short_threshold_seconds: 5e-4}",
            "detection.short_threshold_seconds: '5e-4' is not a duration above 0, up to 1h: write 0.0005",
        ),
        (
            "detection: {short_threshold_seconds: '0,5'}",
            "detection.short_threshold_seconds: '0,5' is not a duration above 0, up to 1h: write 0.5",
        ),
        (
            "detection: {short_threshold_seconds: half}",
            "detection.short_threshold_seconds: 'half' is not a duration above 0, up to 1h: write for example 0.5 or 500ms",
        ),
        ("detection: {scan: {interval_seconds: 11s}}", "detection.scan.interval_seconds: '11s' is not a duration from 100ms to 10s"),
        ("metrics: {max_comms: '60'}", "metrics.max_comms: '60' is not an integer from 1 to 1000: write 60"),
        ("detection: {fast_scan: {cpu_share: 5%}}", "detection.fast_scan.cpu_share: '5%' is not a number from 0.005 to 0.5: write 0.05"),
        ("detection: {short_threshold_seconds: 0}", "detection.short_threshold_seconds: 0 is not a duration above 0, up to 1h"),
        ("metrics: {new_series_hold_seconds: .nan}", "metrics.new_series_hold_seconds: nan is not a duration from 0s to 1h"),
        ("detection: {scan: {interval_seconds: 11}}", "detection.scan.interval_seconds: 11 is not a duration from 100ms to 10s"),
        ("detection: {fast_scan: {cpu_share: 0.6}}", "detection.fast_scan.cpu_share: 0.6 is not a number from 0.005 to 0.5"),
        ("detection: {scan: 5}", "detection.scan: 5 is not a mapping of keys to values"),
        ("log: {level: warning}", "log.level: 'warning' is not one of debug, info, warn, error (did you mean warn?)"),
        ("metrics: {per_comm_histogram: 1}", "metrics.per_comm_histogram: 1 is not true or false"),
        (
            "web: {telemetry_path: /-/ready}",
            f"web.telemetry_path: '/-/ready' is reserved, as are {', '.join(('/', *RESERVED_PATHS))}",
        ),
        ("web: {listen_address: ':65536'}", "web.listen_address: ':65536' has a port above 65535"),
        ("web: {listen_address: '[1::2::3]:1'}", "web.listen_address: '[1::2::3]:1' has no IPv6 address between its brackets"),
        ("- 1", "top level: a list is not a mapping of keys to values"),
        ("metrics: {max_comm: 3}", "metrics.max_comm: unknown key (did you mean max_comms?)"),
        ("detektion: {}", "detektion: unknown key (did you mean detection?)"),
        (
            "procfs: /proc",
            "procfs: unknown key (known keys here: detection, metrics, attribution, handlers, sinks, records, web, security, log)",
        ),
        ("log: {format: json, format: logfmt}", "log.format: duplicate key, again on line 1"),
        ("mode: scan", "mode: unknown key: it belongs under detection; check the indentation"),
        ("detection: {web: {}}", "detection.web: unknown key: it belongs at top level; check the indentation"),
        ("filter: {}", "filter: unknown key: it belongs under sinks.jsonl or sinks.sqlite or sinks.otlp; check the indentation"),
        ("sinks: {jsonl: {filter: {comm: make}}}", "sinks.jsonl.filter.comm: 'make' is not a list: write [\"make\"]"),
        ("log: {level: info}\nweb:\nlog: {format: json}", "log: duplicate key, again on line 3"),
    ],
)
def test_bad_value(load: Load, text: str, message: str) -> None:
    """A message has to name the key, what is wrong and what is allowed."""
    assert refusal(load, text) == message


@pytest.mark.parametrize("path", ["metrics", "/", "/a b", "/a?b", "/a#b", "/ä", "//x", "/-/healthy", "", "/a\\n"])
def test_bad_telemetry_path(load: Load, path: str) -> None:
    """A path that no request can name, or that is another page, would hide the metrics."""
    assert refusal(load, f'web: {{telemetry_path: "{path}"}}').startswith("web.telemetry_path: ")


@pytest.mark.parametrize(
    "address", ["10199", "localhost", ":", ":x", "::1:80", "[::1]", "[zz]:80", "a b:80", ":1\\n", "http://a:80", ":+80", ":٣"]
)
def test_bad_listen_address(load: Load, address: str) -> None:
    """A wrong address has to be found before anything is started."""
    assert refusal(load, f'web: {{listen_address: "{address}"}}').startswith("web.listen_address: ")


@pytest.mark.parametrize("address", [":0", ":65535", "localhost:1", "127.0.0.1:1", "[::]:1", "[fe80::1%eth0]:1", "my-host.example.com:80"])
def test_good_listen_address(load: Load, address: str) -> None:
    """Each documented form has to be accepted."""
    assert load(f'web: {{listen_address: "{address}"}}').web.listen_address == address


def test_override_names_the_flag() -> None:
    """A person who mistyped a flag must not be sent to a file."""
    assert loading.override(Config(), "detection.mode", "netlink", "--mode").detection.mode == "netlink"
    with pytest.raises(ConfigError, match=r"^--mode: 'netlik' is not one of .* \(did you mean netlink\?\)$"):
        loading.override(Config(), "detection.mode", "netlik", "--mode")
    with pytest.raises(
        ConfigError, match=r"^--path\.procfs: '/nowhere' is not a directory where procfs is mounted: it has neither stat nor self$"
    ):
        loading.override(Config(), "procfs", "/nowhere", "--path.procfs")


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("0.5", 0.5),
        ("500ms", 0.5),
        ("2s", 2),
        ("1m", 60),
        ("1m30.5s", 90.5),
        ("100us", 0.0001),
        ("100µs", 0.0001),
        ("0.3s", 0.3),
        ("'2'", 2),
    ],
)
def test_durations(load: Load, written: str, seconds: float) -> None:
    """A duration is written as for the flags of snoop, or as seconds; the schema allows the same."""
    assert load(f"detection: {{short_threshold_seconds: {written}}}").detection.short_threshold_seconds == seconds
    as_schema = json.loads(config_files.schema())["properties"]["detection"]["properties"]["short_threshold_seconds"]["anyOf"]
    value = yaml.safe_load(written)
    assert re.search(as_schema[1]["pattern"], value) if isinstance(value, str) else as_schema[0]["type"] == "number"


@pytest.mark.parametrize("seconds", [0, 1e-9, 0.0005, 0.02, 0.1, 1, 90, 3600, 86400, 366 * 86400, 1e9])
def test_a_duration_is_written_as_it_is_read(seconds: float) -> None:
    """Messages and help show limits in this form, for people to copy."""
    assert durations.parse(durations.written(seconds)) == round(seconds * NS)


def test_procfs_is_known_by_what_is_in_it(tmp_path: Path) -> None:
    """Another directory would look like an empty host. With subset=pid there is only `self`, which dangles in another namespace."""
    (tmp_path / "self").symlink_to("12")
    for folder in ("/proc", str(tmp_path), str(REPOSITORY / "tests/fixtures/proc")):
        assert loading.override(Config(), "procfs", folder, "--path.procfs").procfs == folder
    for folder in ("/", "/nowhere", "a\0b"):
        with pytest.raises(ConfigError, match=r"^--path\.procfs: .* is not a directory where procfs is mounted"):
            loading.override(Config(), "procfs", folder, "--path.procfs")
