"""`python -m tests.fuzz.one TARGET FLAG...`: fuzz one target in this process, with flags of libFuzzer."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["exporter"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    target, *flags = sys.argv[1:]
    again = f"{sys.executable} -m tests.fuzz.one {target}"  # `-merge=1` runs it as a command of the shell
    atheris.Setup([again, *flags], TARGETS[target])
    atheris.Fuzz()
