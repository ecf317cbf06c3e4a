"""Loads `failures.bpf.o` in the child of the mode `ebpf_core`. It is optional: the mode runs without the parts that cannot be attached.

Two of its parts attach to the return of kernel functions (fexit), which needs a kernel with ftrace, and which some hosts forbid. The names
of the functions differ between kernels and architectures; the BTF of the running kernel lists them.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from exporter.kernel.architecture import HERE
from exporter.kernel.attached import FAILURES_MAP, MISSING_PARTS
from exporter.kernel.bpf import ENOTSUPP
from exporter.loaders.handover import Sender
from exporter.loaders.libbpf import Libbpf
from exporter.model.failures import FailedStarts, Kind

OBJECT = Path(__file__).parents[1] / "_bpf" / "failures.bpf.o"

_NATIVE, _COMPAT = HERE.system_calls if HERE else ("", "")
_SAFE_DETACH = "bpf_tramp_image"
"""A struct of kernels that can detach fexit programs from functions that sleep: 5.12 or later, and their stable updates of 5.10."""
_WAITS_FOR_TASKS, _WAITS_SAFELY = "rcu_tasks_nvcsw", "rcu_tasks_exit_list"
"""Members of `task_struct`. A kernel with the first waits, at a detach, until no task is in a trampoline. Without the second (Linux 6.9) it
also waits for tasks that exit. The first process of a container exits only after all others there: if one of them detaches, both wait
forever, and so does all later tracing on the host (fixed by Linux commit 1612160b9127)."""


class _Hook(NamedTuple):
    program: str
    functions: tuple[str, ...]
    """The first one that exists is used."""
    optional: bool = False
    """Whether the kernel may have none of them, and then nothing is missed."""


_PARTS: dict[Kind, tuple[_Hook, ...]] = {
    Kind.FORK: (_Hook("on_clone", ("kernel_clone", "_do_fork")),),
    # No function inside sees all failed execs: some fail before `bprm_execve`, and compilers change `do_execveat_common`
    Kind.EXEC: (
        _Hook("on_execve", (f"{_NATIVE}execve",)),
        _Hook("on_execveat", (f"{_NATIVE}execveat",)),
        _Hook("on_execve_32", (f"{_COMPAT}execve",), optional=True),
        _Hook("on_execveat_32", (f"{_COMPAT}execveat",), optional=True),
    ),
    Kind.OOM_KILL: (_Hook("on_oom_kill", ()),),
}


class _Unattachable(Exception):
    """Its message is the reason."""


_Targets = Mapping[str, str | None]
"""By program: the function that it attaches to, or None if the program itself says it."""


def load(libbpf: Libbpf, control: int, sender: Sender) -> None:
    """Load and attach what can be, and add it to the handover. `control` is the map that tells programs when to count."""
    path, wanted = Path(sender.request["failures"]), FailedStarts(sender.request["failed_starts"])
    parts: dict[Kind, _Targets] = {}
    missing: dict[Kind, str] = {}
    for kind, hooks in _PARTS.items():
        try:
            parts[kind] = _targets(libbpf, path, hooks, wanted)
        except _Unattachable as reason:
            missing[kind] = str(reason)
        except OSError as error:
            missing[kind] = _rejected(error)
    objects = _Objects(libbpf, path, control)
    try:
        together = objects.load({program: function for targets in parts.values() for program, function in targets.items()})
    except OSError as error:
        together = None
        if error.errno == errno.EPERM:  # whoever forbids one such program forbids all; each try would take 40 ms
            missing |= {kind: _rejected(error) for kind, targets in parts.items() if any(targets.values())}
            parts = {kind: targets for kind, targets in parts.items() if kind not in missing}
    for kind, targets in parts.items():
        try:
            attached = (together or objects.load(targets)).attach(targets)
        except OSError as error:
            missing[kind] = _rejected(error)
            continue
        sender.add_map(FAILURES_MAP + kind, *attached.map, per_cpu=True)
        sender.handover.programs.update(attached.programs)
        sender.handover.links.update(attached.links)
    sender.handover.facts[MISSING_PARTS] = missing


def _rejected(error: OSError) -> str:
    if error.errno == ENOTSUPP:
        return "this kernel cannot attach programs to its functions (on arm64, Linux 6.4 or later can)"
    step = {"bpf_object__load": "loading", "bpf_program__attach": "attaching"}.get(error.filename, error.filename)
    reason = "this host does not allow such programs" if error.errno in (errno.EPERM, errno.EACCES) else "--log.level=debug shows more"
    return f"{step} failed ({error.strerror}): {reason}"


def _targets(libbpf: Libbpf, path: Path, hooks: tuple[_Hook, ...], wanted: FailedStarts) -> _Targets:
    if not path.exists():
        raise _Unattachable("the BPF object is not built: install clang and libbpf-dev, then run `make all` or `pip install .` again")
    targets: dict[str, str | None] = {}
    for hook in hooks:
        if not hook.functions:
            targets[hook.program] = None
            continue
        if reason := _refusal(libbpf, wanted):
            raise _Unattachable(reason)
        # the programs read the result behind one argument
        found = next((each for each in hook.functions if libbpf.function_arguments(each) == 1), None)
        if found:
            targets[hook.program] = found
        elif not hook.optional:
            raise _Unattachable(f"the kernel's BTF does not describe {' or '.join(hook.functions)}")
    return targets


def _refusal(libbpf: Libbpf, wanted: FailedStarts) -> str | None:
    """Return why programs are not attached to functions of this kernel, or None."""
    if wanted is FailedStarts.NEVER:
        return "detection.failed_starts is never"
    if not libbpf.has_struct(_SAFE_DETACH):
        return "this kernel cannot detach such a program safely: Linux 5.12 or later can"
    waits_for_exits = libbpf.has_member("task_struct", _WAITS_FOR_TASKS) and not libbpf.has_member("task_struct", _WAITS_SAFELY)
    if waits_for_exits and wanted is not FailedStarts.ALWAYS:
        return "this kernel can hang when such a program is detached: Linux 6.9 or later cannot, or set detection.failed_starts"
    return None


@dataclass(frozen=True, slots=True)
class _Attached:
    map: tuple[int, int, int]
    """Descriptor, size of a key, size of a value."""
    programs: dict[str, int]
    links: dict[str, int]


class _Object:
    def __init__(self, libbpf: Libbpf, opened: int) -> None:
        self._libbpf = libbpf
        self._programs = {libbpf.name("program", each): each for each in libbpf.each("program", opened)}
        counts = next(each for each in libbpf.each("map", opened) if libbpf.name("map", each) == "failures")
        call = libbpf.call
        self._map = call("bpf_map__fd", counts), call("bpf_map__key_size", counts), call("bpf_map__value_size", counts)

    def attach(self, targets: _Targets) -> _Attached:
        """Attach all or none. Raises `OSError`."""
        call, links = self._libbpf.call, dict[str, int]()
        try:
            for each in targets:
                links[each] = self._libbpf.pointer("bpf_program__attach", self._programs[each])
        except OSError:
            for link in links.values():
                call("bpf_link__destroy", link)
            raise
        programs = {each: call("bpf_program__fd", self._programs[each]) for each in targets}
        return _Attached(self._map, programs, {each: call("bpf_link__fd", link) for each, link in links.items()})


class _Objects:
    def __init__(self, libbpf: Libbpf, path: Path, control: int) -> None:
        self._libbpf = libbpf
        self._path = path
        self._control = control

    def load(self, targets: _Targets) -> _Object:
        """Load these programs of the object. Raises `OSError`."""
        libbpf = self._libbpf
        opened = libbpf.pointer("bpf_object__open_file", bytes(self._path), None)
        for each in libbpf.each("map", opened):
            if libbpf.name("map", each).endswith(".data.control"):
                libbpf.call("bpf_map__reuse_fd", each, self._control)
        for each in libbpf.each("program", opened):
            name = libbpf.name("program", each)
            libbpf.call("bpf_program__set_autoload", each, name in targets)
            if function := targets.get(name):
                libbpf.call("bpf_program__set_attach_target", each, 0, function.encode())
        libbpf.call("bpf_object__load", opened)
        return _Object(libbpf, opened)
