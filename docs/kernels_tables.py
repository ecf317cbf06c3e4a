"""The tables of docs/kernels.md, from the kept result of `make test-kernels`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench import results
from docs.marks import code, measured_on, table
from exporter.supervision.modes import MODES

_BCC = ("ebpf_bcc, ring buffer", "ebpf_bcc, perf buffers")
_MODES = "modes"

Guest = Mapping[str, Any]
"""A `tests.vm.matrix.Found`."""


def blocks() -> dict[str, str]:
    """Return the blocks of docs/kernels.md."""
    result = results.read("kernels")
    kernels = [guest for guest in result["guests"] if guest["name"].startswith("Linux ")]
    others = [guest for guest in result["guests"] if guest not in kernels]
    where = f"{measured_on(result, 'kernels').removeprefix('One run of `python -m bench kernels`, ')}"
    bcc = "`ebpf_bcc`", "`ebpf_bcc`, headers"
    head = ("kernel", "machine", "storms", "failed forks and execs", "records, owners", *bcc, "serving", "package", "seconds")
    return {
        "kernels": table(head, map(_kernel, kernels)),
        "modes": table(("kernel", *(code(spec.mode) for spec in MODES)), _modes(kernels)),
        "conditions": table(("condition", "kernel", "result"), (row for guest in others for row in _conditions(guest))),
        "run": f"`make test-kernels`, {sum(guest['seconds'] for guest in result['guests']) // 60} minutes one by one: {where}\n",
    }


def _kernel(guest: Guest) -> Sequence[str]:
    if not guest["result"]:
        return (guest["name"], guest["skipped"] or "no result", *[""] * 7, str(guest["seconds"]))
    found = guest["result"]
    cells = (("storms",), ("failures",), ("records and owners",), _BCC, ("ebpf_bcc, headers",), ("serving",), ("package",))
    return (found["release"], found["architecture"], *(_verdict(found, names) for names in cells), str(guest["seconds"]))


def _verdict(found: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return how many checks there were, or what failed; nothing if none of these sections ran."""
    sections = [found["sections"][name] for name in names if name in found["sections"]]
    failed = [line for each in sections for line in each["failed"]]
    refused = [each["refused"] for each in sections if each["refused"]]
    skipped = [line for each in sections for line in each["skipped"]]
    checks = sum(each["checks"] for each in sections)
    if failed:
        return f"**{len(failed)} of {checks} failed**"
    parts = [f"exact ({checks})"] if checks else []
    parts += [f"refused: {reason}" for reason in refused]
    parts += [f"skipped: {line}" for line in skipped if not checks]
    return "; ".join(parts)


def _modes(kernels: Sequence[Guest]) -> Iterator[Sequence[str]]:
    for guest in kernels:
        found = guest["result"].get("sections", {}).get(_MODES)
        if found:
            said = found["facts"]
            yield (guest["result"]["release"], *("no" if said.get(spec.mode, "?") else "yes" for spec in MODES))


def _conditions(guest: Guest) -> Iterator[Sequence[str]]:
    result = guest["result"]
    if not result:
        yield (guest["name"], guest["kernel"], guest["skipped"] or "no result")
        return
    for name, section in result["sections"].items():
        if name == _MODES:
            reasons = {mode: said for mode, said in section["facts"].items() if said and mode != "selected"}
            verdict = f"`doctor` selects {code(section['facts']['selected'])}. " + " ".join(f"{code(m)}: {r}." for m, r in reasons.items())
        else:
            verdict = _verdict(result, (name,))
        yield (guest["name"] if name in ("usual", _MODES) else name, result["release"], verdict)
