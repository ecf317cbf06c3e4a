"""Compile a CO-RE object: `python3 bpf/build.py FOLDER/NAME.bpf.o`, from NAME.bpf.c. Needs clang, libbpf-dev and linux-libc-dev.

Used by the Makefile and by the wheel's build hook, so that there is one recipe. An object fits every architecture of its byte order.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

OBJECTS = ("lifecycle.bpf.o", "failures.bpf.o", "events.bpf.o")


def build(output: Path, clang: str = "clang") -> None:
    """Write the object to `output`. Raises OSError (no clang) or subprocess.CalledProcessError (see its message above)."""
    source = Path(__file__).with_name(output.name).with_suffix(".c")
    output.parent.mkdir(parents=True, exist_ok=True)
    multiarch = sysconfig.get_config_var("MULTIARCH")
    headers = [f"-I/usr/include/{multiarch}"] if multiarch else []
    fresh = output.with_suffix(".tmp")
    # mcpu=v2 runs on every kernel with the tracepoints used; -g makes the BTF that CO-RE and the layout tests read
    command = [clang, "-target", "bpf", "-mcpu=v2", "-O2", "-g", "-Wall", "-Werror", *headers, "-c", str(source), "-o", str(fresh)]
    # so that the object does not depend on where the checkout is
    subprocess.run([*command, f"-ffile-prefix-map={source.parent}=bpf", "-fdebug-compilation-dir=."], check=True)
    fresh.replace(output)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
