"""Loads `events.bpf.o` in the child of the mode `ebpf_core`, if somebody wants events. The mode runs without it if it cannot be loaded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from exporter.kernel.attached import EVENT_BYTES, EVENT_PROGRAMS, EVENTS_MISSING
from exporter.kernel.bpf import BpfMap
from exporter.kernel.event_layout import EventConfig, EventKeyLayout
from exporter.kernel.layout import COMM_LEN
from exporter.loaders.handover import Sender
from exporter.loaders.libbpf import PER_CPU_ARRAY, Libbpf
from exporter.model import KERNEL_THREADS
from exporter.model.events import EventKind

OBJECT = Path(__file__).parents[1] / "_bpf" / "events.bpf.o"


def load(libbpf: Libbpf, control: int, group_dead_arg: int, sender: Sender) -> None:
    """Load and attach the programs of the wanted kinds, and add them to the handover. `control` is the map that tells them when to send."""
    request = sender.request["events"]
    if not request["kinds"]:
        return
    facts = sender.handover.facts
    if not Path(request["object"]).exists():
        facts[EVENTS_MISSING] = "the BPF object is not built: install clang and libbpf-dev, then run `make all` or `pip install .` again"
        return
    try:
        _load(libbpf, request, control, group_dead_arg, sender)
    except OSError as error:
        facts[EVENTS_MISSING] = f"{error.filename or 'loading'} failed ({error.strerror}): --log.level=debug shows more"


def _load(libbpf: Libbpf, request: dict[str, Any], control: int, group_dead_arg: int, sender: Sender) -> None:
    config = EventConfig(group_dead_arg=group_dead_arg, kernel_threads=KERNEL_THREADS)
    config.filtered_by[:] = request["filtered_by"]
    opened, maps = libbpf.opened(Path(request["object"]), {".rodata": config})
    wanted = sorted(EVENT_PROGRAMS[EventKind(kind).position] for kind in request["kinds"])
    is_guarded = EventKind.EXIT in request["kinds"] and not group_dead_arg
    entries = {"events": request["bytes"], "event_keys": max(1, len(request["keys"])), **({} if is_guarded else {"guard": 1})}
    for name, each in maps.items():
        if name.endswith(".data.control"):
            libbpf.call("bpf_map__reuse_fd", each, control)
        elif name in entries:
            libbpf.call("bpf_map__set_max_entries", each, entries[name])
    programs = {libbpf.name("program", each): each for each in libbpf.each("program", opened)}
    for name, each in programs.items():
        libbpf.call("bpf_program__set_autoload", each, name in wanted)
    libbpf.call("bpf_object__load", opened)

    _allow(_map(libbpf, maps["event_keys"]), request["keys"])
    links = {name: libbpf.pointer("bpf_program__attach", programs[name]) for name in wanted}
    for name in ("events", "event_counts"):
        sizes = _map(libbpf, maps[name])
        sender.add_map(name, *sizes, per_cpu=libbpf.call("bpf_map__type", maps[name]) == PER_CPU_ARRAY)
    for name, link in links.items():
        sender.handover.programs[name] = libbpf.call("bpf_program__fd", programs[name])
        sender.handover.links[name] = libbpf.call("bpf_link__fd", link)
    sender.handover.facts[EVENT_BYTES] = request["bytes"]


def _map(libbpf: Libbpf, each: int) -> tuple[int, int, int]:
    """Return descriptor, size of a key, size of a value."""
    return libbpf.call("bpf_map__fd", each), libbpf.call("bpf_map__key_size", each), libbpf.call("bpf_map__value_size", each)


def _allow(sizes: tuple[int, int, int], keys: Iterable[tuple[int, int | str, int]]) -> None:
    """Fill the map of allowed values. No process has a comm that is too long for it."""
    allowed = BpfMap(*sizes)
    for by, value, kinds in keys:
        if isinstance(value, int):
            allowed.update(bytes(EventKeyLayout(by, value)), kinds.to_bytes(4, "little"))
        elif len(value) < COMM_LEN:
            allowed.update(bytes(EventKeyLayout(by, name=value.encode())), kinds.to_bytes(4, "little"))
