"""`/metrics`, from snapshots made by hand."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric, PlatformCollector, ProcessCollector
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.config.options import Config, Metrics
from exporter.metrics.exposition import Exposition
from exporter.metrics.families import Labels, NativeHistogram, NativeHistograms
from exporter.metrics.formats import OPENMETRICS, TEXT, Format
from exporter.model import NS, Lost, Mode, Outcome, SwitchReason, comm_text, lifetimes
from exporter.model.counts import Breakdown, Counts, ProcessCounts
from exporter.model.dimensions import COMM, PARENT
from exporter.model.failures import FAILURES, Kind
from exporter.supervision.reload import LastReload
from exporter.supervision.snapshot import Snapshot
from tests.unit.snapshots import BUCKETS, CONFIG, by_parent, ended, ordinary, snapshot, totalled, worst

GOLDEN = Path(__file__).parents[1] / "fixtures/metrics.txt"
MOST_SERIES = 950
HOSTILE = [
    b'a"b\\c\n',
    b'{le="1"}',
    b"\xff\xfe\x80",
    "\u202eevil".encode(),
    b"# HELP x",
    b"a b 1 2",
    b"\\n",
    b'"',
    b"\\",
    b"} 1\nx{",
    "\u2028".encode(),
    b"\x1b[31m",
    b" ",
    "\U0001f600".encode(),
]

CHANGING = [
    (r"^(shortproc_collect_duration_seconds) .*", r"\1 0.001"),
    (r"^(shortproc_exporter_config_last_reload_success_timestamp_seconds) .*", r"\1 1.7e+09"),
    (r"^(shortproc_exporter_build_info){.*} 1.0", r'\1{python_version="3.11.2",revision="0123abc",version="0.1.0"} 1.0'),
]
"""What differs from run to run, and what the golden file has in its place."""


def rendered(shown: Snapshot, form: Format = TEXT, config: Config = CONFIG) -> str:
    return Exposition(config, lambda: shown, LastReload()).render(form).decode()


def families(shown: Snapshot, form: Format = TEXT, config: Config = CONFIG) -> dict[str, Metric]:
    """What comes back from a parser."""
    parse = parse_openmetrics if form is OPENMETRICS else parse_text
    return {family.name: family for family in parse(rendered(shown, form, config))}


def values(family: Metric, *labels: str) -> dict[tuple[str, ...], float]:
    """The samples by the values of their labels."""
    return {tuple(sample.labels[label] for label in labels): sample.value for sample in family.samples}


def test_golden(request: pytest.FixtureRequest) -> None:
    """Every name, help text, label and value of an ordinary scrape; `pytest --regenerate-golden` writes it anew."""
    lines = rendered(ordinary()).splitlines(keepends=True)
    text = "".join(line for line in lines if not re.match(r"(# (HELP|TYPE) )?(process_|python_info)", line))
    for pattern, constant in CHANGING:
        text = re.sub(pattern, constant, text, flags=re.MULTILINE)
    if request.config.getoption("--regenerate-golden"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_both_formats_say_the_same() -> None:
    """Prometheus asks for OpenMetrics first; others read the text."""
    changing = ("process_", "shortproc_collect_duration_seconds", "shortproc_exporter_config_last_reload_success_timestamp_seconds")

    def samples(form: Format) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        found = [sample for family in families(ordinary(), form).values() for sample in family.samples]
        return {(each.name, frozenset(each.labels.items())): each.value for each in found if not each.name.startswith(changing)}

    assert samples(OPENMETRICS) == samples(TEXT)


def test_the_own_process_is_shown_as_the_library_shows_it() -> None:
    """Dashboards for any Python process show the exporter's as well; names, texts, types and labels are the library's."""

    def described(families: Iterable[Metric]) -> dict[str, object]:
        return {each.name: (each.documentation, each.type, [sample.labels for sample in each.samples]) for each in families}

    library = [*ProcessCollector(registry=None).collect(), *PlatformCollector(registry=None).collect()]
    ours = families(ordinary())
    assert described(ours[each.name] for each in library) == described(library)
    values = {each.name: each.samples[0].value for each in library}
    assert ours["process_start_time_seconds"].samples[0].value == values["process_start_time_seconds"]
    assert ours["process_max_fds"].samples[0].value == values["process_max_fds"]
    for name in ("process_virtual_memory_bytes", "process_resident_memory_bytes", "process_cpu_seconds", "process_open_fds"):
        assert ours[name].samples[0].value == pytest.approx(values[name], rel=0.5)


def test_no_created_series() -> None:
    """They would be a third more series that nobody asks for; protobuf says it without."""
    assert "_created" not in rendered(ordinary(), OPENMETRICS)


@pytest.mark.parametrize("form", [TEXT, OPENMETRICS], ids=["text", "openmetrics"])
def test_hostile_comms_survive(form: Format) -> None:
    """Whoever runs a process chooses its name; it can't break the format, nor pass for another name."""
    counts = totalled(Counts(by={COMM: Breakdown({comm: ended(number) for number, comm in enumerate(HOSTILE, 1)})}))
    counts.by[PARENT] = by_parent({comm: number for number, comm in enumerate(HOSTILE, 1)})
    found = families(snapshot(counts), form)
    expected = {(comm_text(comm),): number for number, comm in enumerate(HOSTILE, 1)} | {("other",): 0}
    assert values(found["shortproc_comm_short_exits"], "comm") == expected
    parents = sorted(expected.items(), key=lambda item: -item[1])[:20]
    assert dict(parents).items() <= values(found["shortproc_parent_short_exits"], "parent_comm").items()


def test_a_host_has_at_most_so_many_series() -> None:
    """The promise of the design, with every outcome, mode, signal and program, the client's own metrics included."""
    text = rendered(worst())
    assert sum(1 for line in text.splitlines() if not line.startswith("#")) <= MOST_SERIES
    found = families(worst())
    assert len(found["shortproc_comm_exits"].samples) == 61 * len(Outcome)
    assert len(found["shortproc_parent_short_exits"].samples) == 21
    assert "process_resident_memory_bytes" in found
    assert "python_info" in found


def test_all_that_can_be_listed_is_there_at_zero() -> None:
    """Prometheus must see a series at 0 before its first increment, or it misses that."""
    found = families(snapshot(Counts(), mode=None))
    assert values(found["shortproc_ended_processes"], "outcome") == {(each,): 0 for each in Outcome}
    assert values(found["shortproc_comm_exits"], "comm", "outcome") == {("other", each): 0 for each in Outcome}
    assert values(found["shortproc_detection_mode"], "mode") == {(each,): 0 for each in Mode}
    assert set(values(found["shortproc_detection_mode_available"], "mode")) == {(each,) for each in Mode}
    assert values(found["shortproc_detection_mode_switches"], "to_mode", "reason") == {
        (mode, why): 0 for mode in Mode for why in SwitchReason
    }
    assert values(found["shortproc_detection_lost"], "reason") == {(each,): 0 for each in Lost}
    signals = values(found["shortproc_signals_delivered"], "signal")
    assert {("SIGKILL",), ("SIGCHLD",), ("SIGRT",)} <= set(signals)
    assert not any(signals.values())
    assert sum(sample.value for sample in found["shortproc_process_runtime_seconds"].samples) == 0
    assert len(found["shortproc_process_runtime_seconds"].samples) == BUCKETS + 2
    for name in (
        "forked_processes",
        "cloned_threads",
        "execs",
        "core_dumps",
        "ended_short_processes",
        "parent_short_exits",
        "comm_cpu_seconds",
    ):
        assert [sample.value for sample in found[f"shortproc_{name}"].samples] == [0]


def test_failures_are_there_once_a_mode_can_tell_them() -> None:
    """Each part for itself, at 0 from its start; and a mode that can't tell them lets none fall or vanish."""
    exec_names = {failure: 0 for failure in FAILURES if failure.kind is Kind.EXEC}
    metrics = {"shortproc_fork_failures", "shortproc_exec_failures", "shortproc_oom_kills"}
    assert not metrics & families(snapshot(Counts())).keys()
    found = families(snapshot(Counts(failures=exec_names)))
    assert metrics & found.keys() == {"shortproc_exec_failures"}
    errors = ("ENOENT", "EACCES", "ENOEXEC", "E2BIG", "other")
    assert values(found["shortproc_exec_failures"], "errno") == {(error,): 0 for error in errors}
    later = families(snapshot(Counts(failures=dict.fromkeys(FAILURES, 3)), mode=Mode.NETLINK, burst=Counts()))
    assert values(later["shortproc_fork_failures"], "errno") == {(error,): 3 for error in ("EAGAIN", "ENOMEM", "other")}
    assert values(later["shortproc_oom_kills"]) == {(): 3}


def test_what_a_mode_can_not_fill_is_absent() -> None:
    """A gauge that nobody knows is not 0."""
    found = families(snapshot(Counts(), mode=Mode.SCAN))
    absent = (
        "detection_capture_ratio",
        "ended_short_processes_peak_per_second",
        "scan_duration_seconds",
        "bpf_program_runs",
        "comm_runtime_seconds",
    )
    assert not {f"shortproc_{name}" for name in absent} & set(found)


def test_whole_families_are_the_sum_of_their_rows() -> None:
    """By name and `other` together make up what rates and alerts rest on."""
    found = families(worst())
    for by_name, whole in {
        "comm_short_exits": "ended_short_processes",
        "comm_exits": "ended_processes",
        "comm_execs": "execs",
        "comm_cpu_seconds": "ended_processes_cpu_seconds",
        "comm_short_cpu_seconds": "ended_short_processes_cpu_seconds",
    }.items():
        parts, total = (sum(sample.value for sample in found[f"shortproc_{name}"].samples) for name in (by_name, whole))
        assert parts == pytest.approx(total, rel=1e-12)


def test_real_time_signals_are_one_series() -> None:
    """There are 33 of them, without names."""
    signals = values(families(snapshot(Counts(signals=dict.fromkeys(range(1, 65), 2))))["shortproc_signals_delivered"], "signal")
    assert len(signals) == 32
    assert signals["SIGRT",] == 2 * 33
    assert signals["SIGKILL",] == 2


def test_histograms_by_name() -> None:
    """Off unless asked for: they are a third of what a host would expose."""
    counts = totalled(Counts(by={COMM: Breakdown({b"sh": ended(5)})}))
    asked = replace(CONFIG, metrics=Metrics(per_comm_histogram=True, runtime_buckets_seconds=CONFIG.metrics.runtime_buckets_seconds))
    samples = families(snapshot(counts), OPENMETRICS, asked)["shortproc_comm_runtime_seconds"].samples
    by_bound = {sample.labels["le"]: sample.value for sample in samples if sample.labels["comm"] == "sh" and "le" in sample.labels}
    assert len(by_bound) == BUCKETS
    assert (by_bound["0.0005"], by_bound["0.001"], by_bound["+Inf"]) == (0, 5, 5)
    assert {sample.labels["comm"] for sample in samples} == {"sh", "other"}


def natives(shown: Snapshot, **options: Any) -> dict[str, dict[Labels, NativeHistogram]]:
    """The native histograms of a scrape, by name and labels."""
    config = replace(CONFIG, metrics=replace(CONFIG.metrics, **options))
    families = Exposition(config, lambda: shown, LastReload()).families()
    return {
        each.family.name: {labels: histogram for labels, histogram, _ in each.series}
        for each in families
        if isinstance(each, NativeHistograms)
    }


def test_native_histograms_are_one_series_each() -> None:
    """Of the whole and for each name that has series; the counts are those of exits."""
    index_of = lifetimes.buckets(3).index_of
    shortest = ProcessCounts([2, 0, 0, 0], short_exits=2, runtime_ns=9000, lifetimes={index_of(4000): 1, index_of(NS): 1})
    counts = totalled(Counts(by={COMM: Breakdown({b"sh": ended(5), b"cc": shortest}, ended(3))}))
    found = natives(snapshot(counts))
    assert set(found) == {"shortproc_process_lifetime_seconds", "shortproc_comm_lifetime_seconds"}
    by_comm = found["shortproc_comm_lifetime_seconds"]
    index = index_of(750_000)
    assert {labels: dict(each.buckets) for labels, each in by_comm.items()} == {
        ("sh",): {index: 5},
        ("cc",): {0: 1},
        ("other",): {index: 3},
    }
    assert by_comm["cc",] == NativeHistogram(3, {0: 1}, 9e-6, zero_count=1, zero_threshold=2.0**-17)
    assert found["shortproc_process_lifetime_seconds"][()].observations() == 10


def test_native_histograms_are_as_fine_as_asked() -> None:
    """Coarser ones have fewer buckets, and the same counts. The finest is counted as it is shown."""
    for schema, index in ((3, -83), (2, -41), (1, -20), (0, -10)):  # 0.75 ms is 2^-10.38 s
        sh = natives(ordinary(), native_histogram_schema=schema)["shortproc_comm_lifetime_seconds"]["cc1",]
        assert (sh.schema, sh.buckets, sh.zero_threshold) == (schema, {index: 40}, 2.0**-17)
    assert natives(ordinary(), native_histograms="off") == {}
    fine = ProcessCounts([9, 0, 0, 0], runtime_ns=NS, lifetimes={lifetimes.buckets(4).index_of(ns): 3 for ns in (750_000, 760_000, 10)})
    sh = natives(snapshot(Counts(by={COMM: Breakdown({b"sh": fine})})), native_histogram_schema=4)["shortproc_comm_lifetime_seconds"]["sh",]
    assert sh == NativeHistogram(4, {-166: 3, -165: 3}, 1.0, zero_count=3, zero_threshold=2.0**-17)


def test_bounds_are_those_of_the_configuration() -> None:
    """As text that Prometheus and the rules use."""
    samples = families(ordinary())["shortproc_process_runtime_seconds"].samples
    bounds = [sample.labels["le"] for sample in samples if "le" in sample.labels]
    assert bounds[:3] == ["0.0001", "0.00025", "0.0005"]
    assert bounds[-3:] == ["300.0", "3600.0", "+Inf"]


@pytest.mark.parametrize("shown", [ordinary(), worst(), snapshot(Counts(), mode=None)], ids=["ordinary", "worst", "empty"])
def test_promtool_is_content(shown: Snapshot) -> None:
    """The linter of Prometheus itself: names, units, types and help texts."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian and Ubuntu: apt install prometheus)")
    result = subprocess.run([promtool, "check", "metrics"], input=rendered(shown), capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_serving_imports_no_client_library() -> None:
    """It would load TLS, HTTP servers, URLs and e-mail, which take 4 MiB, before anybody asks for them."""
    unwanted = {"prometheus_client", "ssl", "http.client", "email"}
    code = f"import sys, exporter.__main__, exporter.app; print({unwanted!r} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"
