from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import exporter
from exporter import cli
from exporter.config.options import Config
from exporter.model import Mode
from exporter.process import version

REPOSITORY = Path(__file__).resolve().parents[2]
Capture = pytest.CaptureFixture[str]

MODES = ", ".join(["auto", *Mode])


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, Config]:
    """What the commands were started with; they themselves are not."""
    seen: dict[str, Config] = {}
    for name, status in (("app", 0), ("doctor", 7)):
        module = types.ModuleType(f"exporter.{name}")

        def main(config: Config, *_reread: object, name: str = name, status: int = status, **_options: object) -> int:
            seen[name] = config
            return status

        module.main = main  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, f"exporter.{name}", module)
        monkeypatch.setattr(exporter, name, module, raising=False)
    return seen


def error_of(arguments: list[str], capsys: Capture) -> str:
    """What bad usage gives, without the first program's name; most is one line."""
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert all(line.startswith("shortproc-exporter: error: ") for line in err.splitlines())
    return err.removeprefix("shortproc-exporter: error: ").rstrip("\n")


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "exporter", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, text=True, timeout=30, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_no_flags_run_with_the_defaults(started: dict[str, Config]) -> None:
    """The exporter has to run without any configuration."""
    assert cli.main([]) == 0
    assert started == {"app": Config()}


def test_every_flag_reaches_its_option(started: dict[str, Config], tmp_path: Path) -> None:
    """A flag that changes nothing would mislead."""
    flags = "--mode=netlink --no-ebpf --web.listen-address=[::1]:1 --web.telemetry-path /m --log.level debug --log.format=json"
    (tmp_path / "self").touch()
    assert cli.main([*flags.split(), f"--path.procfs={tmp_path}"]) == 0
    config = started["app"]
    assert (config.detection.mode, config.no_ebpf, config.procfs) == (Mode.NETLINK, True, str(tmp_path))
    assert (config.web.listen_address, config.web.telemetry_path) == ("[::1]:1", "/m")
    assert (config.log.level, config.log.format) == ("debug", "json")


@pytest.mark.parametrize("arguments", [["--mode=scan", "doctor"], ["doctor", "--mode=scan"], ["doctor", "--mode", "scan"]])
def test_flags_may_stand_on_both_sides_of_a_command(started: dict[str, Config], arguments: list[str]) -> None:
    """Nobody remembers which side a flag belongs to."""
    assert cli.main(arguments) == 7
    assert started["doctor"].detection.mode == Mode.SCAN


@pytest.mark.parametrize(
    "arguments",
    [
        "--config.file snoop doctor",
        "doctor --config.file snoop",
        "--config.file=check-config --config.file=snoop doctor",
        "--config.file doctor doctor --config.file snoop",
        "--log.level=warn doctor --config.file snoop",
    ],
)
def test_a_value_is_not_a_command(started: dict[str, Config], arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may have any name, that of a command too."""
    monkeypatch.chdir(tmp_path)
    Path("snoop").write_text("detection: {mode: scan}")
    assert cli.main(arguments.split()) == 7
    assert started["doctor"].detection.mode == Mode.SCAN


def test_flags_override_the_file(started: dict[str, Config], tmp_path: Path) -> None:
    """The order of precedence is documented."""
    file = tmp_path / "a.yml"
    file.write_text("detection: {mode: netlink}\nlog: {level: warn}\n")
    assert cli.main([f"--config.file={file}", "--mode=scan"]) == 0
    assert (started["app"].detection.mode, started["app"].log.level) == (Mode.SCAN, "warn")
    assert cli.main([f"--config.file={file}", "--fast-scan"]) == 0
    assert started["app"].detection.mode == Mode.FAST_SCAN


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--mode=foo", f"--mode: 'foo' is not one of {MODES}"),
        ("--mode=", f"--mode: '' is not one of {MODES}"),
        ("--mode", "--mode: needs a value"),
        ("--no-ebpf=1", "--no-ebpf: takes no value, but got '1'"),
        ("--mod=scan", "unknown flag --mod (did you mean --mode?)"),
        ("--web.listen-adress :1", "unknown flag --web.listen-adress (did you mean --web.listen-address?)"),
        ("--web.listen-adress=:1 doctor", "unknown flag --web.listen-adress (did you mean --web.listen-address?)"),
        ("--xyz", "unknown flag --xyz: see shortproc-exporter --help"),
        ("-x", "unknown flag -x: see shortproc-exporter --help"),
        ("doctor --require=ebpf_cor", f"--require: 'ebpf_cor' is not one of {', '.join(Mode)} (did you mean ebpf_core?)"),
        ("doctor --xyz", "unknown flag --xyz: see shortproc-exporter doctor --help"),
        ("--count 3 snoop", "--count is a flag of shortproc-exporter snoop: write it after snoop"),
        ("doctor --count=3", "--count is a flag of shortproc-exporter snoop: shortproc-exporter doctor has no such flag"),
        (
            "--web.listen-address=:1 snoop",
            "--web.listen-address is a flag of shortproc-exporter: shortproc-exporter snoop has no such flag",
        ),
        (
            "--mode=foo --log.level=loud --log.format=json",
            (f"--mode: 'foo' is not one of {MODES}\nshortproc-exporter: error: --log.level: 'loud' is not one of debug, info, warn, error"),
        ),
        ("--web.listen-address=:70000", "--web.listen-address: ':70000' has a port above 65535"),
        ("--log.level=loud doctor", "--log.level: 'loud' is not one of debug, info, warn, error"),
        ("--path.procfs=/nowhere", "--path.procfs: '/nowhere' is not a directory where procfs is mounted: it has neither stat nor self"),
        ("--fast-scan --mode=scan", "set either --fast-scan or --mode=scan, not both"),
        ("--fast-scan --mode=auto", "set either --fast-scan or --mode=auto, not both"),
        ("--no-ebpf --mode=ebpf_core", "set either --no-ebpf or --mode=ebpf_core, not both"),
        ("--no-ebpf --mode=ebpf_bcc", "set either --no-ebpf or --mode=ebpf_bcc, not both"),
        ("docter", "unknown command docter (did you mean doctor?)"),
        ("topp", "unknown command topp (did you mean top?)"),
        ("scan --mode", "unknown command scan: the commands are snoop, top, doctor, check-config"),
        ("doctor now", "unexpected argument now: see shortproc-exporter doctor --help"),
        ("check-config", "check-config needs a file: shortproc-exporter check-config FILE"),
        ("check-config a --config.file=b", "check-config takes one file, as an argument or with --config.file"),
        ("check-config a b", "check-config takes one file, as an argument or with --config.file"),
        ("check-config /nowhere", "/nowhere: cannot be read: no such file or directory"),
        ("--config.file=", "'': cannot be read: no such file or directory"),
    ],
)
def test_bad_usage(arguments: str, message: str, capsys: Capture, started: dict[str, Config]) -> None:
    """Bad usage is one line and status 2, and nothing is started."""
    assert error_of(arguments.split(), capsys) == message
    assert not started


@pytest.mark.parametrize("arguments", [["a\nb"], ["--x\nb"], ["check-config", "a\nb"], ["--mode=a\nb"], ["doctor", "\x1b[2J\ud800"]])
def test_hostile_arguments_stay_on_one_line(arguments: list[str], capsys: Capture) -> None:
    """An argument may come from a script that took it from anybody."""
    assert error_of(arguments, capsys).isprintable()


def test_mode_of_the_file_and_no_ebpf_contradict(capsys: Capture, tmp_path: Path) -> None:
    """A mode that is forced can't be given up in silence."""
    file = tmp_path / "a.yml"
    file.write_text("detection: {mode: ebpf_core}")
    assert "set either --no-ebpf or detection.mode: ebpf_core in " in error_of(["--no-ebpf", f"--config.file={file}"], capsys)


@pytest.mark.parametrize(
    "form", ["check-config {}", "check-config --config.file={}", "--config.file={} check-config", "check-config --log.level=info {}"]
)
def test_check_config(form: str, capsys: Capture) -> None:
    """Deployment scripts rest on line and status."""
    path = REPOSITORY / "config" / "exporter.yml"
    assert cli.main(form.format(path).split()) == 0
    assert capsys.readouterr().out == f"{path}: ok\n"


def test_check_config_refuses(capsys: Capture, tmp_path: Path) -> None:
    """The path of the bad key has to be in the line."""
    file = tmp_path / "bad.yml"
    file.write_text("metrics: {max_comms: many}")
    assert error_of(["check-config", str(file)], capsys) == f"{file}: metrics.max_comms: 'many' is not an integer from 1 to 1000"


def test_check_config_tells_the_problems_of_all_files(capsys: Capture, tmp_path: Path) -> None:
    """The handlers may be bad, and the web configuration too."""
    file, web = tmp_path / "exporter.yml", tmp_path / "web.yml"
    file.write_text(f"web: {{config_file: {web}}}\nhandlers: [{{name: 'not_there:A', path: [{tmp_path}]}}]")
    web.write_text("rate_limit: {interval: 1s}\nbasic_auth_users: {a: b}")
    lines = error_of(["check-config", str(file)], capsys).split("\nshortproc-exporter: error: ")
    assert [line.partition(": ")[2].partition(": ")[0] for line in lines] == ["handlers[0]", "rate_limit.burst", "basic_auth_users.a"]


def test_check_config_warns_of_a_file_that_a_reload_cannot_read(capsys: Capture, tmp_path: Path) -> None:
    """Root reads everything; the user that the exporter switches to does not, and its first SIGHUP would fail."""
    file, web = tmp_path / "exporter.yml", tmp_path / "web.yml"
    file.write_text(f"web: {{config_file: {web}}}\nsecurity: {{user: '61234'}}")
    web.write_text("")
    for path in (file, web):
        path.chmod(0o600)
    assert cli.main(["check-config", str(file)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{file}: ok\n"
    wanted = [f"shortproc-exporter: warning: user 61234 cannot read {path}, so a reload will fail" for path in (file, web)]
    assert [line.partition(": chgrp")[0] for line in err.splitlines()] == (wanted if os.geteuid() == 0 else [])
    file.write_text("security: {user: nobody-knows}")
    assert cli.main(["check-config", str(file)]) == 0
    assert ("security.user: there is no user 'nobody-knows' on this host" in capsys.readouterr().err) == (os.geteuid() == 0)


def test_help_names_every_flag_and_status(capsys: Capture) -> None:
    """Help is the first thing that anybody reads."""
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    flags = "--config.file --mode --no-ebpf --fast-scan --web.listen-address --web.telemetry-path --path.procfs --log.level --log.format"
    assert all(part in text for part in [*flags.split(), "--version", "doctor", "check-config", "exit status"])
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    ("command", "has", "has_not"),
    [
        ("snoop", ["--count", "--mode", "columns:", "--url=http"], ["--web.", "--config.file=/"]),
        ("top", ["--by", "--once", "keys:", "--url=http"], ["--web.", "--folded"]),
        ("doctor", ["--mode", "--path.procfs", "doctor --config.file="], ["--web.", "--count"]),
        ("check-config", ["[FILE]", "--web.config.file", "check-config /etc"], ["--count"]),
    ],
)
def test_each_command_has_help_of_its_own(command: str, has: list[str], has_not: list[str], capsys: Capture) -> None:
    """Flags that a command does not have would only be in the way."""
    assert cli.main([command, "-h"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: shortproc-exporter {command} ")
    assert all(part in text for part in [*has, "examples:", "exit status:", "--help"])
    assert not [part for part in has_not if part in text]
    assert max(map(len, text.splitlines())) <= 120


def test_version(capsys: Capture) -> None:
    """Package tests and bug reports rest on its form."""
    assert cli.main(["--version"]) == 0
    form = rf"shortproc-exporter, version {re.escape(exporter.__version__)} \(revision: \S+\)\n  python version: \d+\.\d+\.\S+\n"
    assert re.fullmatch(form, capsys.readouterr().out)


def test_out_of_memory_is_said(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """One line says what is short; a service manager starts it again."""

    def fail(_: object) -> int:
        raise MemoryError

    monkeypatch.setattr(cli, "_run", fail)
    assert cli.main([]) == 1
    assert capsys.readouterr().err == "shortproc-exporter: error: out of memory: raise the memory limit\n"


def test_runs_as_a_module() -> None:
    """`python -m exporter` is the entry point before installation."""
    result = run("--version", capture_output=True)
    assert (result.returncode, result.stderr) == (0, "")
    result = run("--nope", capture_output=True)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)


def test_closed_pipe_ends_it_quietly() -> None:
    """`shortproc-exporter --help | head -1` must not print a traceback."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        result = run("--help", stdout=write_end, stderr=subprocess.PIPE)
    finally:
        os.close(write_end)
    assert (result.returncode, result.stderr) == (141, "")


def test_full_disk_is_said() -> None:
    """Output that got lost must not look like success."""
    with Path("/dev/full").open("w") as full:
        result = run("--version", stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 1
    assert result.stderr == "shortproc-exporter: error: cannot write to standard output: No space left on device\n"


def test_revision(tmp_path: Path) -> None:
    """A package knows its revision from a file, a checkout from .git, packed or not, worktree or not."""
    package = tmp_path / "exporter"
    package.mkdir()
    assert version.revision(package) == "unknown"
    git = tmp_path / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    assert version.revision(package) == "unknown"
    (git / "packed-refs").write_text(f"# pack-refs with: peeled\n{'a' * 40} refs/heads/main\n{'b' * 40} refs/heads/mainly\n")
    assert version.revision(package) == "aaaaaaa"
    (git / "refs" / "heads" / "main").write_text(f"{'c' * 40}\n")
    assert version.revision(package) == "ccccccc"
    worktree = tmp_path / "tree"
    (worktree / "exporter").mkdir(parents=True)
    (git / "worktrees" / "tree").mkdir(parents=True)
    (worktree / ".git").write_text(f"gitdir: {git}/worktrees/tree\n")
    (git / "worktrees" / "tree" / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "worktrees" / "tree" / "commondir").write_text("../..\n")
    assert version.revision(worktree / "exporter") == "ccccccc"
    (git / "HEAD").write_text(f"{'d' * 40}\n")
    assert version.revision(package) == "ddddddd"
    (package / "_revision").write_text("1234567\n")
    assert version.revision(package) == "1234567"
