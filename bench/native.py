"""Native histograms against classic ones: how far off the quantiles of each name are on a real Prometheus, and what they cost it.

python -m bench native            # as root, with Debian's `prometheus`, and beside it Prometheus 3 (.ci/prometheus3); takes three minutes
WRITE=1 python -m bench native    # keeps the figures; `make docs` writes them into docs/scaling.md

Four exporters see the same storm: 60 names, each with lifetimes of its own. The truth are records, which have each runtime in nanoseconds.
Those with native histograms have their own: each reads the clock at a moment of its own. Each Prometheus takes native histograms, and
scrapes all four.
"""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode

from bench import results
from bench.exporter import FORMATS, Running, running
from bench.prometheus import INSTALLED, THREE, Prometheus, Release, prometheus
from exporter.model import NS, lifetimes

_LIVES = Path(__file__).with_name("lives.c")
_NAMES = 60
_EACH = 301
"""Processes of each name. Of 300, each value between two of them is a quantile, and releases of Prometheus choose differently."""
_PAUSE_SECONDS = 0.001
"""Between two starts: on a busy machine, records would be dropped else, and the truth would not be whole."""
_QUANTILES = (0.5, 0.9, 0.99)
_NOBODY = 65534
_NATIVE = {f"native histograms, schema {schema}": schema for schema in (lifetimes.COARSE, lifetimes.FINE)}
_CLASSIC, _NEITHER = "`per_comm_histogram`", "no histogram by name"
_OPTIONS: dict[str, dict[str, Any]] = {
    **{title: {"native_histograms": "auto", "native_histogram_schema": schema} for title, schema in _NATIVE.items()},
    _CLASSIC: {"native_histograms": "off", "per_comm_histogram": True},
    _NEITHER: {"native_histograms": "off"},
}


@contextmanager
def _exporter(folder: Path, number: int, options: dict[str, Any], more: dict[str, Any]) -> Iterator[Running]:
    path = folder / f"{number}.yml"
    metrics = {"max_comms": 300, "new_series_hold_seconds": 0} | options
    path.write_text(json.dumps({"metrics": metrics, "detection": {"short_threshold_seconds": 3600}} | more))
    with running("--mode=ebpf_core", f"--config.file={path}") as exporter:
        yield exporter


def _title(release: Release) -> str:
    return f"Prometheus {'.'.join(map(str, release.version()))}"


@contextmanager
def _server(release: Release, exporters: Iterable[Running]) -> Iterator[Prometheus]:
    settings, flags = release.native()
    job = {"job_name": "shortproc", "static_configs": [{"targets": [f"127.0.0.1:{each.port}" for each in exporters]}]}
    config = json.dumps({"global": {"scrape_interval": "3s", **settings}, "scrape_configs": [job]})
    with prometheus(config, *flags, release=release) as server:
        yield server


def _storm(folder: Path) -> None:
    """Start processes of all names in random order. Each name has a median lifetime and a spread of its own."""
    program = folder / "lives"
    subprocess.run(["cc", "-O2", "-static", "-o", program, _LIVES], check=True)
    lives: list[tuple[Path, str]] = []
    for number in range(_NAMES):
        path = folder / f"n{number}"
        path.hardlink_to(program)
        typical_us, spread = 500 * 600 ** (number / _NAMES), random.uniform(0.1, 1.2)
        lives += [(path, str(min(round(random.lognormvariate(math.log(typical_us), spread)), 3_000_000))) for _ in range(_EACH)]
    random.shuffle(lives)
    started: list[int] = []
    for path, life_us in lives:
        started.append(os.posix_spawn(path, [path.name, "live", life_us], {}))
        time.sleep(_PAUSE_SECONDS)
        if len(started) > 200:
            os.waitpid(started.pop(0), 0)
    for pid in started:
        os.waitpid(pid, 0)


def _sink(folder: Path, number: int) -> Path:
    """Make a directory for records, and return the path of their file."""
    sink = folder / f"sink{number}"
    sink.mkdir()
    os.chown(sink, _NOBODY, _NOBODY)
    return sink / "records.jsonl"


def _truth(records: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for line in records.read_text().splitlines():
        record = json.loads(line)
        found.setdefault(record["comm"], []).append(round(record["runtime_seconds"] * NS))
    return {comm: sorted(runtimes) for comm, runtimes in found.items() if comm.startswith("n") and comm[1:].isdecimal()}


def _vector(server: Prometheus, query: str) -> list[dict[str, Any]]:
    answer = server.call(f"/api/v1/query?{urlencode({'query': query})}")
    assert isinstance(answer, dict)
    result: list[dict[str, Any]] = answer["result"]
    return result


def _errors(server: Prometheus, truth: dict[str, list[int]], q: float, of: str) -> list[float]:
    """How far the quantile of each name is off, in percent."""
    found = _vector(server, f"histogram_quantile({q}, {of})")
    values = {each["metric"]["comm"]: float(each["value"][1]) for each in found}
    real = {comm: runtimes[max(math.ceil(q * len(runtimes)), 1) - 1] / NS for comm, runtimes in truth.items()}
    return sorted(100 * abs(values[comm] / each - 1) for comm, each in real.items())


def _differing(server: Prometheus, truth: dict[str, list[int]], of: str, schema: int) -> int:
    """How many buckets of all names have another count than there are records."""
    differing, index_of = 0, lifetimes.buckets(schema).index_of
    for each in _vector(server, of):
        if runtimes := truth.get(each["metric"]["comm"]):
            stored = {round(2**schema * math.log2(float(most))): int(n) for _, _, most, n in each["histogram"][1]["buckets"]}
            real = Counter(map(index_of, runtimes))
            differing += sum(stored.get(index, 0) != real.get(index, 0) for index in stored.keys() | real.keys())
    return differing


def _dropped(exporter: Running) -> int:
    """How many records the truth lacks."""
    samples = exporter.samples().items()
    return round(sum(value for (name, _), value in samples if name == "shortproc_records_dropped_total"))


def _sizes(server: Prometheus, exporter: Running) -> dict[str, int]:
    bodies = {
        f"{title}{', gzip' * (coding == 'gzip')}": len(exporter.get(accept=FORMATS[title], coding=coding))
        for title in ("OpenMetrics", "protobuf")
        for coding in ("identity", "gzip")
    }
    instance = f"127.0.0.1:{exporter.port}"
    return {
        "series": round(server.value(f'count({{instance="{instance}"}})')),
        "names": round(server.value(f'count(shortproc_comm_short_exits_total{{instance="{instance}"}})')),
        **bodies,
    }


def main() -> None:
    """Print quantiles and sizes."""
    with tempfile.TemporaryDirectory(prefix="shortproc-native-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        records = {title: _sink(folder, schema) for title, schema in _NATIVE.items()}
        sinks = {title: {"sinks": {"jsonl": {"path": str(path)}}} for title, path in records.items()}
        exporters = {
            title: stack.enter_context(_exporter(folder, number, options, sinks.get(title, {})))
            for number, (title, options) in enumerate(_OPTIONS.items())
        }
        releases = [release for release in (INSTALLED, THREE) if release.program("prometheus")]
        servers = {_title(release): stack.enter_context(_server(release, exporters.values())) for release in releases}
        _storm(folder)
        time.sleep(10)
        truths = {title: _truth(path) for title, path in records.items()}
        truths[_CLASSIC] = next(iter(truths.values()))
        names = dict.fromkeys(_NATIVE, "shortproc_comm_lifetime_seconds") | {_CLASSIC: "shortproc_comm_runtime_seconds_bucket"}
        families = {title: f'{name}{{instance="127.0.0.1:{exporters[title].port}"}}' for title, name in names.items()}
        errors = {
            f"{title}, {name}": {str(q): _rounded(_errors(server, truths[title], q, of)) for q in _QUANTILES}
            for title, of in families.items()
            for name, server in servers.items()
        }
        sizes = {title: _sizes(servers[_title(INSTALLED)], exporter) for title, exporter in exporters.items()}
        differing = {
            f"{title}, {name}": _differing(server, truths[title], families[title], schema)
            for title, schema in _NATIVE.items()
            for name, server in servers.items()
        }
        dropped = {title: _dropped(exporters[title]) for title in _NATIVE}
    truth = truths[_CLASSIC]
    processes = sum(map(len, truth.values()))
    print(f"{processes:,} records of {len(truth)} names; buckets that differ from them: {differing}; records dropped: {dropped}")
    for title, by_quantile in errors.items():
        print(f"{title}: " + "; ".join(f"q{q}: {each['median']} % off, at most {each['most']}" for q, each in by_quantile.items()))
    for title, size in sizes.items():
        print(f"{title}: {size}")
    results.write("native", {"names": len(truth), "processes": processes, "errors": errors, "sizes": sizes})


def _rounded(errors: Sequence[float]) -> dict[str, float]:
    return {"median": round(median(errors), 2), "most": round(max(errors), 1)}


if __name__ == "__main__":
    main()
