"""Loads `lifecycle.bpf.o` (CO-RE) with libbpf, in a child; see `handover`."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from exporter.kernel import release
from exporter.kernel.attached import LATER_COPIES, Handover
from exporter.kernel.capabilities import bpf_refusal
from exporter.kernel.cgroups import hierarchy
from exporter.kernel.event_layout import EVENTS_BYTES
from exporter.kernel.layout import COPIES, ProgramConfig, comm_rows, program_config, row_bytes, standby_control
from exporter.loaders import events, failures, handover
from exporter.loaders.base import Settings
from exporter.loaders.libbpf import PER_CPU_ARRAY, Libbpf
from exporter.model import ModeUnavailable, RuntimeScale
from exporter.model.events import NO_EVENTS, WantedEvents
from exporter.model.failures import FailedStarts
from exporter.process.shortage import advice

OBJECT = Path(__file__).parents[1] / "_bpf" / "lifecycle.bpf.o"

_OLDEST = (5, 8)
_NO_MEMLOCK = (5, 11)
"""The first kernel that charges maps to the cgroup instead of RLIMIT_MEMLOCK."""
_BTF = Path("/sys/kernel/btf/vmlinux")
_SECTIONS = {".bss": "shared", ".data.control": "control"}
_PROGRAMS = ("on_free", "on_exit", *LATER_COPIES, "on_exec", "on_signal", "on_newtask", "on_mkdir")


def load(settings: Settings, on_log: Callable[[str], None]) -> Handover:
    """See `ModeLoader`."""
    return load_core(
        settings.scale,
        on_log,
        by_origin=settings.by_origin,
        arguments=settings.arguments,
        comms=settings.comms,
        failed_starts=settings.failed_starts,
        wanted_events=settings.events,
    )


def load_core(  # noqa: PLR0913 - two are required
    scale: RuntimeScale,
    on_log: Callable[[str], None],
    *,
    by_origin: bool = True,
    arguments: bool = False,
    comms: int = 0,
    failed_starts: FailedStarts = FailedStarts.AUTO,
    wanted_events: WantedEvents = NO_EVENTS,
    event_bytes: int = EVENTS_BYTES,
    force_guard: bool = False,
    several_copies: bool | None = None,
    timeout: float = 20,
) -> Handover:
    """Load and attach the programs, in standby. Raises `ModeUnavailable` with advice.

    `by_origin` counts for whom processes ran; `arguments` keeps those of processes for their records; `comms` is how many comms may have
    series. `wanted_events` are sent through a ring of `event_bytes`. `force_guard` counts exits as on kernels whose tracepoint does not
    mark the last thread, `several_copies` as on kernels that preempt programs, or not; by default as this kernel does.
    """
    cgroups = hierarchy()
    request = {
        "object": str(OBJECT),
        "failures": str(failures.OBJECT),
        "failed_starts": failed_starts,
        "events": asdict(wanted_events) | {"object": str(events.OBJECT), "bytes": event_bytes},
        "config": bytes(program_config(scale, cgroups, by_origin=by_origin, arguments=arguments)).hex(),
        "comm_rows": comm_rows(comms),
        "force_guard": force_guard,
        "copies": COPIES if (release.preempts_programs() if several_copies is None else several_copies) else 1,
    }
    loaded = handover.load(__name__, request, timeout=timeout, on_log=on_log)
    loaded.facts.update(cgroups=cgroups.root, arguments=arguments)
    return loaded


def main() -> None:
    """Run in the child."""
    sender = handover.Sender()
    try:
        _load(sender)
    except ModeUnavailable as reason:
        sender.refuse(str(reason))
    except OSError as error:
        sender.refuse(_explain(error))
    else:
        sender.send()


def _load(sender: handover.Sender) -> None:
    path = Path(sender.request["object"])
    _require(path)
    try:
        libbpf = Libbpf()
    except OSError as error:
        raise ModeUnavailable("libbpf.so.1 is not installed (Debian and Ubuntu: apt install libbpf1)") from error
    config = ProgramConfig.from_buffer_copy(bytes.fromhex(sender.request["config"]))
    if not sender.request["force_guard"]:
        config.group_dead_arg = libbpf.tracepoint_arguments("sched_process_exit") > 1

    config.copies = sender.request["copies"]
    opened, maps = libbpf.opened(path, {".rodata": config, ".data.control": standby_control()})
    for name, entries in _entries(config, sender.request["comm_rows"]).items():
        libbpf.call("bpf_map__set_max_entries", maps[name], entries)
    for name in ("comms_a", "comms_b"):
        libbpf.call("bpf_map__set_value_size", maps[name], row_bytes(config.lifetimes))
    libbpf.call("bpf_object__load", opened)

    for name, each in maps.items():
        sizes = libbpf.call("bpf_map__key_size", each), libbpf.call("bpf_map__value_size", each)
        per_cpu = libbpf.call("bpf_map__type", each) == PER_CPU_ARRAY
        sender.add_map(_SECTIONS.get(f".{name.partition('.')[2]}", name), libbpf.call("bpf_map__fd", each), *sizes, per_cpu=per_cpu)
    programs = {libbpf.name("program", each): each for each in libbpf.each("program", opened)}
    for copy in range(1, config.copies):
        programs[LATER_COPIES[copy - 1]] = _later_copy(copy, libbpf, path, config, maps)
    for name in filter(programs.__contains__, _PROGRAMS):
        sender.handover.programs[name] = libbpf.call("bpf_program__fd", programs[name])
        sender.handover.links[name] = libbpf.call("bpf_link__fd", libbpf.pointer("bpf_program__attach", programs[name]))
    control = next(each for name, each in maps.items() if name.endswith(".data.control"))
    failures.load(libbpf, libbpf.call("bpf_map__fd", control), sender)
    events.load(libbpf, libbpf.call("bpf_map__fd", control), config.group_dead_arg, sender)


def _later_copy(copy: int, libbpf: Libbpf, path: Path, config: ProgramConfig, maps: Mapping[str, int]) -> int:
    """Load `on_exit` once more, with the maps of the first; see `ProgramConfig.copies`."""
    config.copy = copy
    opened, own_maps = libbpf.opened(path, {".rodata": config})
    for name in own_maps:
        if not name.endswith(".rodata"):
            libbpf.call("bpf_map__reuse_fd", own_maps[name], libbpf.call("bpf_map__fd", maps[name]))
    found = {libbpf.name("program", each): each for each in libbpf.each("program", opened)}
    for name, each in found.items():
        libbpf.call("bpf_program__set_autoload", each, name == "on_exit")
    libbpf.call("bpf_object__load", opened)
    return found["on_exit"]


def _entries(config: ProgramConfig, comms: int) -> dict[str, int]:
    """Return the number of entries of maps that differ from `bpf/maps.h`. What is not used has one."""
    entries = {"comms_a": comms, "comms_b": comms}
    if config.group_dead_arg:
        entries["guard"] = 1
    if config.copies == 1:
        entries |= {"exit_marks": 1, "cpus": 1}
    if not config.arguments:
        entries["arguments"] = 1
    if not config.origins:
        entries |= dict.fromkeys(("origins_a", "origins_b", "cgroup_counts_a", "cgroup_counts_b", "cgroup_paths"), 1)
    return entries


def refusal(settings: Settings | None = None) -> str | None:  # noqa: ARG001 - of every mode's loader
    """See `ModeLoader`."""
    try:
        _require(OBJECT)
    except ModeUnavailable as reason:
        return str(reason)
    return None


def _require(path: Path) -> None:
    """Raise `ModeUnavailable` if loading would fail. Its reason is clearer than the errno of the kernel."""
    if release.version() < _OLDEST:
        raise ModeUnavailable(f"kernel {os.uname().release} is too old: this mode needs 5.8 or later")
    if not _BTF.exists():
        raise ModeUnavailable(f"the kernel has no BTF ({_BTF}): use one that is built with CONFIG_DEBUG_INFO_BTF=y")
    if not path.exists():
        raise ModeUnavailable("the BPF object is not built: install clang and libbpf-dev, then run `make all` or `pip install .` again")
    if reason := bpf_refusal():
        raise ModeUnavailable(reason)


def _explain(error: OSError) -> str:
    step = error.filename or "loading"
    if error.errno == errno.EACCES:
        return (
            f"the kernel rejected {step} ({error.strerror}): a security module (SELinux, AppArmor) forbids it, or the verifier, whose log "
            "--log.level=debug shows"
        )
    if error.errno == errno.EPERM:
        memlock = "" if release.version() >= _NO_MEMLOCK else ", or raise the limit of locked memory (ulimit -l unlimited)"
        profile = f"allow bpf(2) in the seccomp profile or security module of the container{memlock}"
        return f"the kernel rejected {step} ({error.strerror}): {profile}"
    if error.errno == errno.ESRCH and step == "btf__find_by_name_kind":
        return "the kernel's BTF does not describe the tracepoint sched_process_exit"
    if shortage := advice(error):
        return f"{step} failed: {shortage}"
    return f"{step} failed ({error.strerror}): --log.level=debug shows the log of the verifier"


if __name__ == "__main__":
    sys.exit("run by exporter.loaders.handover")
