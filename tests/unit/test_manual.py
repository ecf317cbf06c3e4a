"""Man pages and completion, as man, bash and zsh take them."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from exporter.arguments import described
from exporter.config.options import Config
from exporter.config.sections import keys_of

ROOT = Path(__file__).parents[2]
MAN = ROOT / "deploy/man"
BASH = ROOT / "deploy/completion/shortproc-exporter.bash"
ZSH = ROOT / "deploy/completion/_shortproc-exporter"
FLAGS = {each.name: [flag.names[-1] for flag in each.flags] for each in described()}
COMMANDS = [name for name in FLAGS if name]
PATIENCE = 10


def needs(tool: str) -> str:
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed")
    return found


@pytest.mark.parametrize("section", [1, 5])
def test_a_page_has_no_mistake(section: int) -> None:
    """Groff drops what it does not understand; lintian reports it."""
    command = [needs("mandoc"), "-T", "lint", "-W", "warning", str(MAN / f"shortproc-exporter.{section}")]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    # the page does not change with the day
    assert [line for line in said.splitlines() if "missing date" not in line] == []


def shown(section: int) -> str:
    """The page as a reader sees it, in one line."""
    command = [needs("mandoc"), "-T", "ascii", "-O", "width=400", str(MAN / f"shortproc-exporter.{section}")]
    page = subprocess.run(command, capture_output=True, check=True).stdout
    plain = subprocess.run(["col", "-bx"], input=page, capture_output=True, check=True).stdout.decode()
    return " ".join(plain.split())


def test_the_pages_show_each_flag_and_each_option() -> None:
    """As they can be typed: a hyphen is the character that a shell knows."""
    commands, options = shown(1), shown(5)
    assert [flag for flags in FLAGS.values() for flag in flags if flag not in commands] == []
    assert [key.name for key in keys_of(Config) if f" {key.name}" not in options] == []
    assert "detection.ebpf_bcc.interpreter Python interpreter that has bcc" in options
    assert "handlers[].filter.min_runtime_seconds" in options


def completed(*words: str) -> list[str]:
    """What bash offers for the last word."""
    script = 'COMP_WORDS=(shortproc-exporter "$@"); COMP_CWORD=$#; compopt() { :; }; _shortproc_exporter; echo "${COMPREPLY[@]}"'
    done = subprocess.run(
        [needs("bash"), "-euo", "pipefail", "-c", f"source {BASH}; {script}", "-", *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return done.stdout.split()


@pytest.mark.parametrize("command", FLAGS)
def test_bash_offers_the_flags_of_each_command(command: str) -> None:
    """All, and none of another command; before a command also the commands."""
    offered = completed(*filter(None, [command]), "-")
    assert [each.rstrip("=") for each in offered] == FLAGS[command]
    assert completed("") == [*COMMANDS, *completed("-")]


def test_bash_offers_values() -> None:
    """With = and without; those of the command; files where a file is wanted; nothing where anything can stand."""
    assert completed("--log.level", "=", "") == ["debug", "info", "warn", "error"]
    assert completed("snoop", "--log.level", "d") == ["debug"]
    assert (completed("top", "--sort", "=", "p9"), completed("snoop", "--sort", "=", "pp")) == (["p99"], ["ppid"])
    assert completed("check-config", "READ") == completed("--config.file", "=", "READ") == ["README.md"]
    assert completed("snoop", "--comm", "=", "") == []


def test_zsh_completes(tmp_path: Path) -> None:
    """A command, and the values of a flag of its own: mistakes in a form that only an interactive zsh reads."""
    zsh = needs("zsh")
    shutil.copy(ZSH, tmp_path)
    setup = f"PS1='> '; fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -D; LISTMAX=1000; stty cols 200; echo rea''dy\n"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(zsh, ["zsh", "-f"], {"TERM": "dumb", "PATH": os.environ["PATH"]})

    def shows(typed: str, *texts: str) -> bool:
        """Whether all of them appear once that is typed."""
        os.write(terminal, typed.encode())
        seen, deadline = "", time.monotonic() + PATIENCE
        while not all(text in seen for text in texts) and time.monotonic() < deadline:
            if select.select([terminal], [], [], 1)[0]:
                seen += os.read(terminal, 4096).decode(errors="replace")
        return all(text in seen for text in texts)

    try:
        assert shows(setup, "\nready")
        assert shows("shortproc-exporter ch\t", "shortproc-exporter check-config")
        assert shows("\x15shortproc-exporter top --sort=\t", "rate", "failed", "cpu", "p99")
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
