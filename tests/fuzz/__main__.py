"""`make fuzz`: feed the code that reads bytes of others with inputs that atheris makes up, guided by the branches that they take.

It begins with the kept corpus. A finding is printed, and stays in build/fuzz; it becomes a unit test. `--keep` adds what took new branches
to the kept corpus, which tests/unit/test_fuzz_corpus.py runs each time.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.fuzz.corpus import keep, kept
from tests.fuzz.targets import TARGETS

_BUILD = Path("build/fuzz")
_LIMITS = ("-max_len=8192", "-timeout=5", "-rss_limit_mb=2048")
_REPORTED_LINES = 40


def _run(target: str, folders: list[Path], *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz.one", target, *_LIMITS, *flags, *map(str, folders)]
    return subprocess.run(command, check=False, text=True, errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _fuzz(target: str, seconds: int, *, wants_keep: bool) -> bool:
    """Fuzz a target. Returns whether there is no finding."""
    shutil.rmtree(_BUILD / target, ignore_errors=True)
    found, chosen = _BUILD / target / "found", _BUILD / target / "chosen"
    found.mkdir(parents=True)
    chosen.mkdir()
    for number, data in enumerate(kept(target)):
        (chosen / f"kept-{number}").write_bytes(data)
    limits = f"-max_total_time={seconds}", f"-artifact_prefix={_BUILD / target}/", "-print_final_stats=1"
    done = _run(target, [found, chosen], *limits)
    lines = done.stdout.splitlines()
    runs = next((each.split()[-1] for each in lines if each.startswith("stat::number_of_executed_units")), "no")
    if done.returncode:
        print(f"{target}: FINDING after {runs} inputs", *lines[-_REPORTED_LINES:], sep="\n  ", flush=True)
        return False
    print(f"{target}: {runs} inputs without a finding", flush=True)
    if wants_keep:
        _run(target, [chosen, found], "-merge=1")
        print(f"{target}: {keep(target, (each.read_bytes() for each in chosen.iterdir()))} inputs kept", flush=True)
    return True


def main() -> None:
    """Fuzz the targets, as many at once as there are CPUs. Exits with 1 if there is a finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--seconds", type=int, default=30, help="for each target (default 30)")
    parser.add_argument("--keep", action="store_true", help="write the kept corpus anew")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(TARGETS):
        parser.error(f"unknown targets: {', '.join(sorted(unknown))}")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        fuzz = partial(_fuzz, seconds=arguments.seconds, wants_keep=arguments.keep)
        if not all(list(pool.map(fuzz, arguments.targets or TARGETS))):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
