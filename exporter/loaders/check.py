"""`make check-bpf`: loads all programs into this kernel, and prints the result of the verifier."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from exporter.config.options import Config
from exporter.kernel.attached import EVENTS_MISSING, MISSING_PARTS, Handover
from exporter.kernel.bpf import map_memory, program_info
from exporter.loaders.bcc import load_bcc, refusal
from exporter.loaders.core import load_core
from exporter.model import ModeUnavailable, RuntimeScale, lifetimes
from exporter.model.events import EventKey, EventKind, WantedEvents

_Load = Callable[[RuntimeScale, Callable[[str], None]], Handover]

_EVERY_KEY = ((1 << len(EventKey)) - 1,) * len(EventKind)


def _fine(load: Callable[..., Handover], scale: RuntimeScale, on_log: Callable[[str], None]) -> Handover:
    """Load with native histograms in schema 4."""
    return load(replace(scale, lifetimes=lifetimes.FINE), on_log)


_CORE: dict[str, _Load] = {
    "ebpf_core, as the exporter loads it": load_core,
    "ebpf_core, as for kernels whose tracepoint does not mark the last thread": partial(load_core, force_guard=True),
    "ebpf_core, with native histograms in schema 4": partial(_fine, load_core),
    "ebpf_core, with events": partial(load_core, wanted_events=WantedEvents(tuple(EventKind), _EVERY_KEY)),
}
_BCC: dict[str, _Load] = {
    "ebpf_bcc, as the exporter loads it": load_bcc,
    "ebpf_bcc, as for kernels without ring buffer and mark of the last thread": partial(load_bcc, use_ring=False, force_guard=True),
    "ebpf_bcc, with native histograms in schema 4": partial(_fine, load_bcc),
}


def main() -> int:
    """Print a line for each program and map. Returns 1 if the programs cannot be loaded."""
    refused = refusal()
    try:
        for what, load in (_CORE if refused else _CORE | _BCC).items():
            print(f"{what}:")
            _show(load)
    except ModeUnavailable as reason:
        print(f"  not loaded: {reason}")
        return 1
    if refused:
        print(f"ebpf_bcc was skipped: {refused}")
    return 0


def _show(load: _Load) -> None:
    handover = load(Config().runtime_scale, lambda line: print(line, file=sys.stderr))
    try:
        for fd in handover.programs.values():
            info = program_info(fd)
            verified = f"{info.instructions} instructions verified" if info.instructions else "verified"
            print(f"  program {info.name:<12} ok  {verified}, {info.jited_bytes} bytes of machine code")
        total = 0
        for name, each in handover.maps.items():
            total += map_memory(each.fd)
            print(f"  map     {name:<16} {map_memory(each.fd) / 2**10:>8.0f} KiB")
        for part, reason in handover.facts.get(MISSING_PARTS, {}).items():
            print(f"  part    {part:<16} is missing: {reason}")
        if reason := handover.facts.get(EVENTS_MISSING):
            print(f"  events are missing: {reason}")
        print(f"  maps together: {total / 2**20:.1f} MiB of kernel memory")
    finally:
        handover.close()


if __name__ == "__main__":
    sys.exit(main())
