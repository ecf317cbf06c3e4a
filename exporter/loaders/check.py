"""`make check-bpf`: loads every program into this kernel's verifier, and says what it made of each."""

from __future__ import annotations

import sys

from exporter.bpfmap import map_memory, program_info
from exporter.config import Config
from exporter.loaders.core import load_core
from exporter.model import Unusable


def main() -> int:
    """Print a line for each program and each map. 1 if they don't load, or where nobody may load them."""
    for guarded in (False, True):
        print("Where the tracepoint does not tell which thread is the last one:" if guarded else "As this kernel is used:")
        try:
            handover = load_core(Config().measures, lambda line: print(line, file=sys.stderr), force_guard=guarded)
        except Unusable as reason:
            print(f"  not loaded: {reason}")
            return 1
        try:
            for fd in handover.programs.values():
                info = program_info(fd)
                verified = f"{info.instructions} instructions verified" if info.instructions else "verified"
                print(f"  program {info.name:<12} ok  {verified}, {info.jited_bytes} bytes of machine code")
            total = 0
            for name, each in handover.maps.items():
                total += map_memory(each.fd)
                print(f"  map     {name:<16} {map_memory(each.fd) / 2**10:>8.0f} KiB")
            print(f"  maps together: {total / 2**20:.1f} MiB of kernel memory")
        finally:
            handover.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
