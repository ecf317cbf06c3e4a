"""What snoop takes on its command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter import cli
from exporter.config.loading import load
from exporter.config.options import Config, Filter
from exporter.library.selection import beyond
from exporter.model import NS, Mode
from exporter.records.tree import By
from exporter.snoop import lines, run
from exporter.snoop.flags import Options

MODES = ", ".join(["auto", *Mode])


def started(monkeypatch: pytest.MonkeyPatch, arguments: str) -> Options:
    """The options that a command line gives."""
    seen: list[Options] = []

    def main(options: Options, _config: Config) -> int:
        seen.append(options)
        return 0

    monkeypatch.setattr(run, "main", main)
    assert cli.main(["snoop", *arguments.split()]) == 0
    return seen[0]


def test_every_flag_reaches_its_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag that changes nothing would mislead."""
    assert started(monkeypatch, "") == Options()
    flags = "--comm=a* --comm b --parent=make --outcome=error --outcome=signal --min-runtime=100us --max-runtime 0.5s --json --count=7"
    wanted = Filter(("a*", "b"), ("make",), outcome=("error", "signal"), min_runtime_seconds=0.0001, max_runtime_seconds=0.5)
    assert started(monkeypatch, f"{flags} --duration=2m") == Options(wanted, json=True, count=7, duration_seconds=120)
    flags = "--unit=cron* --pod=cart-0 --pod=cart-1 --container=web --namespace=shop --user=ci --spawner=runner"
    wanted = Filter(unit=("cron*",), pod=("cart-0", "cart-1"), container=("web",), namespace=("shop",), user=("ci",), spawner=("runner",))
    assert started(monkeypatch, flags).filter == wanted
    wanted = Filter(exe=("*/cc1",), cgroup=("/system.slice/*",), uid=(0, 1000), pid=(7,), ppid=(1, 2))
    flags = "--exe=*/cc1 --cgroup=/system.slice/* --uid=0 --uid=1000 --pid=7 --ppid=1 --ppid=2"
    assert started(monkeypatch, f"{flags} --wide --sort=cpu") == Options(wanted, wide=True, sort="cpu")
    past = started(monkeypatch, "--from=records.db --since=2030-01-31T03:10Z --until=2030-01-31T03:15Z")
    assert past == Options(file="records.db", since_ns=1_896_059_400 * NS, until_ns=1_896_059_700 * NS)
    assert started(monkeypatch, "--tree") == Options(tree=True)
    assert [started(monkeypatch, f"--folded{value}").folded for value in ("", "=cpu")] == [By.PROCESSES, By.CPU]
    assert started(monkeypatch, "--url=https://[::1]:10199/sub/").url == "https://[::1]:10199/sub"


@pytest.mark.parametrize(
    ("text", "seconds"), [("5ms", 0.005), ("0.5s", 0.5), ("100us", 0.0001), ("0", 0), ("2", 2), ("1.5", 1.5), ("1.5m", 90), ("1h", 3600)]
)
def test_times(monkeypatch: pytest.MonkeyPatch, text: str, seconds: float) -> None:
    """Seconds, or a unit."""
    assert started(monkeypatch, f"--duration={text}").duration_seconds == seconds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(
            (["--max-runtime", text], f"--max-runtime: '{text}' is not a duration from 0s to 1000h: write for example 0.5 or 500ms")
            for text in ("", "5 ms", "ms", "-1", "inf", "nan", "5sec", "5ms3")
        ),
        (["--max-runtime", "٣"], "--max-runtime: '٣' is not a duration from 0s to 1000h: write 3"),
        (["--max-runtime", "1e3"], "--max-runtime: '1e3' is not a duration from 0s to 1000h: write 1000"),
        (["--max-runtime", ".5"], "--max-runtime: '.5' is not a duration from 0s to 1000h: write 0.5"),
        (["--max-runtime", "1001h"], "--max-runtime: '1001h' is not a duration from 0s to 1000h"),
        (["--count=0"], "--count: '0' is not a whole number above 0"),
        (["--count=-1"], "--count: '-1' is not a whole number above 0"),
        (["--count=1.5"], "--count: '1.5' is not a whole number above 0"),
        (["--duration=x\ny"], r"--duration: 'x\ny' is not a duration from 0s to 1000h: write for example 0.5 or 500ms"),
        (["--min-runtime=2ms", "--max-runtime=1ms"], "--min-runtime is longer than --max-runtime"),
        (["--outcome=fine"], "--outcome: 'fine' is not one of ok, error, signal, unknown"),
        (["--comm="], "--comm: '' is not a glob of 1 to 256 characters, such as make or python*"),
        (["--url=localhost:10199"], "--url: 'localhost:10199' is not a URL such as http://localhost:10199"),
        (["--url=http://h:99999"], "--url: 'http://h:99999' is not a URL such as http://localhost:10199"),
        (["--url=http://a b"], "--url: 'http://a b' is not a URL such as http://localhost:10199"),
        (["--url=http://[::1"], "--url: 'http://[::1' is not a URL such as http://localhost:10199"),
        (["--url=http://h", "--no-ebpf"], "set either --url or --no-ebpf, not both: the exporter at --url has its own configuration"),
        (["--url=http://h", "--mode=scan"], "set either --url or --mode, not both: the exporter at --url has its own configuration"),
        (
            ["--min-runtime=1s"],
            "--min-runtime: nothing would be shown: only processes with a runtime below 1 s are short (detection.short_threshold_seconds)",
        ),
        (["--json", "--tree"], "set either --json or --tree, not both"),
        (["--tree", "--sort=cpu"], "set either --tree or --sort, not both"),
        (["--json", "--wide"], "set either --json or --wide, not both"),
        (["--from=x", "--mode=scan"], "set either --from or --mode, not both: the file has what was recorded"),
        (["--from=x", "--duration=1"], "set either --from or --duration, not both: the file has what was recorded"),
        (["--since=03:10"], "--since needs --from: snoop shows the past only from the file of a sink"),
        (["--from=x", "--since=now"], "--since: 'now' is not a time such as 03:10, 2030-01-31T03:10:00 or 10m (ago)"),
        (["--from=x", "--since=1m", "--until=1h"], "--until is not after --since"),
        (["--pid=0"], "--pid: 0 is not an integer from 1 to 4194304"),
        (["--uid=root"], "--uid: 'root' is not an integer from 0 to 4294967294"),
        (["--sort=size"], "--sort: 'size' is not one of time, pid, ppid, comm, runtime, cpu, outcome, parent, spawner, user, owner, exe"),
        (["--folded=memory"], "--folded: 'memory' is not one of processes, cpu, runtime"),
        (["--mode=top"], f"--mode: 'top' is not one of {MODES}"),
        (["--web.listen-address=:1"], "--web.listen-address is a flag of shortproc-exporter: shortproc-exporter snoop has no such flag"),
        (["now"], "unexpected argument now: see shortproc-exporter snoop --help"),
    ],
)
def test_bad_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Bad usage is one line and status 2, and nothing is started."""
    assert cli.main(["snoop", *arguments]) == 2
    assert capsys.readouterr() == ("", f"shortproc-exporter: error: {message}\n")


def test_its_flags_are_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """The exporter would ignore them in silence."""
    assert cli.main(["--count=3"]) == 2
    assert capsys.readouterr().err == "shortproc-exporter: error: --count is a flag of shortproc-exporter snoop: write it after snoop\n"


def test_a_runtime_that_no_short_process_has(tmp_path: Path) -> None:
    """Who asks for it has to learn why it is not shown; the threshold is the configuration's."""
    file = tmp_path / "exporter.yml"
    file.write_text("detection: {short_threshold_seconds: 0.5}")
    threshold = load(str(file)).detection.short_threshold_seconds
    assert beyond(Filter(), threshold) is None
    assert beyond(Filter(max_runtime_seconds=0.5), threshold) is None
    assert "below 0.5 s are short" in (beyond(Filter(max_runtime_seconds=0.6), threshold) or "")


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Help is the first thing that anybody reads."""
    assert cli.main(["snoop", "--help"]) == 0
    text = capsys.readouterr().out
    flags = "--comm --parent --max-runtime --min-runtime --outcome --json --duration --count --url --mode --config.file"
    assert all(part in text for part in (*flags.split(), *lines.HEADER.split(), "examples:", "exit status:"))
    assert "--web." not in text
    assert max(map(len, text.splitlines())) <= 120
