from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.config import checks
from exporter.config import options as config
from exporter.config.options import Config, ConfigError, FastScan, Web
from exporter.model import MAX_BOUNDS, Mode

REPOSITORY = Path(__file__).resolve().parents[2]
Load = Callable[[str | bytes], Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_text(text: str | bytes) -> Config:
        path = tmp_path / "exporter.yml"
        path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
        return config.load(str(path))

    return load_text


def refusal(load: Load, text: str | bytes) -> str:
    """The message without the path of the file."""
    with pytest.raises(ConfigError) as caught:
        load(text)
    message = str(caught.value)
    assert message.isprintable()  # so it is one line
    file, _, rest = message.partition(": ")
    assert file.endswith("exporter.yml")
    return rest


def keys_of(section: type[Any], prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(section):
        factory: Any = field.default_factory
        if isinstance(factory, type):
            yield from keys_of(factory, f"{prefix}{field.name}.")
        elif "check" in field.metadata:
            yield prefix + field.name


KEYS = list(keys_of(Config))


def nested(key: str, value: str) -> str:
    *sections, last = key.split(".")
    return "".join(f"{'  ' * depth}{name}:\n" for depth, name in enumerate(sections)) + f"{'  ' * len(sections)}{last}: {value}\n"


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
    assert config.load(str(path)) == Config()
    written = yaml.safe_load(path.read_text())
    for key in KEYS:
        value = written
        for name in key.split("."):
            assert name in value, f"{key} is missing in config/exporter.yml"
            value = value[name]


def test_shipped_schema_is_current() -> None:
    """Editors check files against the committed schema; `python -m exporter.config.options > config/schema.json` renews it."""
    committed = json.loads((REPOSITORY / "config" / "schema.json").read_text())
    assert committed == json.loads(json.dumps(config.schema()))


def test_every_default_passes_its_own_check() -> None:
    """A default that the check refuses could not be written into a file."""
    for key in KEYS:
        value: Any = Config()
        for name in key.split("."):
            value = getattr(value, name)
        plain = list(value) if isinstance(value, tuple) else value
        assert config.override(Config(), key, plain, key) == Config()


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
    ("text", "message"),
    [
        ("metrics: {runtime_buckets_seconds: [0.1, 0.2, 0.5, 0.5]}", "[3]: 0.5 is not greater than the bound before it (0.5)"),
        ("metrics: {runtime_buckets_seconds: [0.1, 0.1000000001]}", "[1]: 0.1000000001 is not greater than the bound before it (0.1)"),
        ("metrics: {runtime_buckets_seconds: [0, 1]}", "[0]: 0 is not a number from 1e-09 to 1e+09"),
        ("metrics: {runtime_buckets_seconds: [1, .inf]}", "[1]: inf is not a number from 1e-09 to 1e+09"),
        ("metrics: {runtime_buckets_seconds: []}", ": a list of 0 is not a list of 1 to 31 rising numbers"),
        ("metrics: {runtime_buckets_seconds: 1}", ": 1 is not a list of 1 to 31 rising numbers"),
        ("metrics: {runtime_buckets_seconds: [[1]]}", "[0]: a list is not a number from 1e-09 to 1e+09"),
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
        ("metrics: {max_comms: 1.0}", "metrics.max_comms: 1.0 is not an integer from 1 to 1000"),
        ("metrics: {max_comms: null}", "metrics.max_comms: null is not an integer from 1 to 1000"),
        ("metrics: {max_comms: {a: 1}}", "metrics.max_comms: a mapping is not an integer from 1 to 1000"),
        ('detection: {short_threshold_seconds: "1"}', "detection.short_threshold_seconds: '1' is not a number above 0, up to 3600"),
        ("detection: {short_threshold_seconds: 0}", "detection.short_threshold_seconds: 0 is not a number above 0, up to 3600"),
        ("metrics: {new_series_hold_seconds: .nan}", "metrics.new_series_hold_seconds: nan is not a number from 0 to 3600"),
        ("detection: {scan: {interval_seconds: 11}}", "detection.scan.interval_seconds: 11 is not a number from 0.1 to 10"),
        ("detection: {fast_scan: {cpu_share: 0.6}}", "detection.fast_scan.cpu_share: 0.6 is not a number from 0.005 to 0.5"),
        ("detection: {scan: 5}", "detection.scan: 5 is not a mapping of keys to values"),
        ("log: {level: warning}", "log.level: 'warning' is not one of debug, info, warn, error (did you mean warn?)"),
        ("metrics: {per_comm_histogram: 1}", "metrics.per_comm_histogram: 1 is not true or false"),
        (
            "web: {telemetry_path: /-/ready}",
            "web.telemetry_path: '/-/ready' is taken (taken are /, /-/healthy, /-/ready, /api/v1/short-processes, /api/v1/stream)",
        ),
        ("web: {listen_address: ':65536'}", "web.listen_address: ':65536' has a port above 65535"),
        ("web: {listen_address: '[1::2::3]:1'}", "web.listen_address: '[1::2::3]:1' has no IPv6 address between its brackets"),
        ("- 1", "top level: a list is not a mapping of keys to values"),
        ("metrics: {max_comm: 3}", "metrics.max_comm: unknown key (did you mean max_comms?)"),
        ("detektion: {}", "detektion: unknown key (did you mean detection?)"),
        ("procfs: /proc", "procfs: unknown key (known here: detection, metrics, handlers, sinks, records, web, security, log)"),
        ("log: {format: json, format: logfmt}", "log.format: given twice (again on line 1)"),
        ("log: {level: info}\nweb:\nlog: {format: json}", "log: given twice (again on line 3)"),
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


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("log: {level: info", "line 1"),
        ("log:\n  level: [", "line 2"),
        ("log:\n\tlevel: info", "line 2"),
        ("a: b: c", "line 1"),
        ("log: {level: \0}", "character"),
        (b"log: {}\nweb: \xff", "line 2: not UTF-8"),
        ("a: &x 1\nb: *x", "anchors (&) and aliases (*) are not taken"),
        ("log: *x", "anchors (&) and aliases (*) are not taken"),
        ("a: &x [*x]", "anchors"),
        ("log: {}\n---\nweb: {}", "document"),
        ("? [a]\n: 1", "a key has to be a word"),
        ("a: " + "[" * 100_000, "nested more than 20 deep"),
        ("- " * 100_000, "nested more than 20 deep"),
        ("log: {level: " + "9" * 100_000 + "}", "longer than 1000 characters"),
        ("log: {level: " + "1:" * 100_000 + "1}", "longer than 1000 characters"),
        ("log: {level: !!python/name:os.system x}", "log.level: 'x' can't be read as python/name:os.system"),
        ("log: {level: 2026-99-99}", "log.level: '2026-99-99' can't be read as timestamp"),
        ("<<: {log: {}}", "<<: unknown key"),
        ("#" * (1 << 20) + "\n", "larger than 1 MiB"),
        ('"a\\nb\\ud800\\e": 1', "a\\nb\\ud800\\x1b: unknown key"),
    ],
)
def test_bad_file(load: Load, text: str | bytes, part: str) -> None:
    """Whatever a file holds, the answer is one line and no traceback."""
    assert part in refusal(load, text)


def test_unreadable_files(tmp_path: Path) -> None:
    """A wrong path has to be told from a wrong content."""
    for path in (tmp_path / "missing", tmp_path, "a\0b", tmp_path / ("x" * 300)):
        with pytest.raises(ConfigError, match="cannot be read: ") as caught:
            config.load(str(path))
        assert str(caught.value).isprintable()


def test_file_with_a_byte_order_mark(load: Load) -> None:
    """Some editors write one."""
    assert load(b"\xef\xbb\xbflog: {level: debug}").log.level == "debug"


def test_override_names_the_flag() -> None:
    """A person who mistyped a flag must not be sent to a file."""
    assert config.override(Config(), "detection.mode", "netlink", "--mode").detection.mode == "netlink"
    with pytest.raises(ConfigError, match=r"^--mode: 'netlik' is not one of .* \(did you mean netlink\?\)$"):
        config.override(Config(), "detection.mode", "netlik", "--mode")
    with pytest.raises(ConfigError, match=r"^--path\.procfs: '/nowhere' is not a directory$"):
        config.override(Config(), "procfs", "/nowhere", "--path.procfs")


SCALARS = st.one_of(
    st.text(max_size=40),
    st.integers().map(str),
    st.floats().map(repr),
    st.sampled_from(
        ["~", "yes", "2026-01-01", "0x1f", "1_000", "1:30", "!!float 1", "!!int a", "!!binary eA==", "!x y", "1e400", "{}", "[]", "|\n x"]
    ),
    st.text().map(json.dumps),
)


@given(key=st.sampled_from(KEYS), scalar=SCALARS)
@settings(max_examples=400, deadline=None)
def test_any_scalar_is_taken_or_refused_with_its_key(tmp_path_factory: pytest.TempPathFactory, key: str, scalar: str) -> None:
    """No value may get past the checks as an exception that nobody catches."""
    path = tmp_path_factory.getbasetemp() / f"any-{os.getpid()}.yml"
    path.write_bytes(nested(key, scalar).encode("utf-8", "surrogatepass"))
    try:
        config.load(str(path))
    except ConfigError as error:
        message = str(error)
        assert message.isprintable()
        # Text that is not YAML at all has a line instead.
        assert key in message or re.search(r"yml: (line \d+|unacceptable character|\S+: unknown key|\S+: given twice)", message)


def test_shown_is_short() -> None:
    """A value of 1 MiB must not fill the screen."""
    assert len(checks.shown("x" * 100_000)) < 80
    assert len(checks.shown(10**900)) < 80
