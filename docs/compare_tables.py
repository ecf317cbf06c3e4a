"""The table of README.md that shows this exporter beside other tools, from bench/results/compare.json."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench import results
from docs.marks import measured_on, table


def blocks() -> dict[str, str]:
    """Return the block of README.md."""
    result = results.read("compare")
    head = ("", f"seen of {result['storm']:,}", "storm slower by", "CPU for each process", "in BPF programs", "memory (PSS)", "seen after")
    note = (
        f"Medians of {result['rounds']} rounds; storms without any tool differed by {result['noise_percent']} %, so smaller slow-downs mean"
        f" nothing. {measured_on(result, 'compare')}"
    )
    left_out = "".join(f" Not measured: {name} ({reason})." for name, reason in result["skipped"].items())
    return {"compare": table(head, _rows(result["tools"], result["storm"])) + f"\n{note}{left_out}\n"}


def _rows(tools: dict[str, dict[str, float | None]], storm: int) -> Iterator[Sequence[str]]:
    for name, row in tools.items():
        yield (
            name,
            _of(min(row["caught"] or 0, storm), ",.0f"),  # a summary at the end is one more line that has the name
            _of(row["slower_percent"], ".1f", " %"),
            _of(row["cpu_us"], ",.0f", " us"),
            _of(row["bpf_ns"], ",.0f", " ns") if row["bpf_ns"] else "",
            _of(row["pss_mib"], ".0f", " MiB"),
            _of(row["sight_ms"], ",.0f", " ms"),
        )


def _of(value: float | None, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{form}}{unit}"
