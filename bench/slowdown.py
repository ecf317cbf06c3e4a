"""How much slower a storm of processes becomes while the exporter runs.

Storms with the exporter and storms without it alternate. Each one with it is compared with the mean of the two next to it, which
cancels a drift of the machine. The noise of a machine is larger than the effect: storms without it, compared in the same way, show it.
"""

from __future__ import annotations

import time
from statistics import mean, median, quantiles

from bench.exporter import running
from bench.workloads import Workload, built

_ROUNDS = 21
_STORMS = {"fork+exec": ("forkexec", 3000), "vfork+exit": ("vfork", 15000)}
Times = dict[str, float]


def _storms(workload: Workload) -> Times:
    """Run each storm; the seconds until it ended."""
    times = {}
    for title, storm in _STORMS.items():
        begun = time.monotonic()
        workload.run_storm(*storm)
        times[title] = time.monotonic() - begun
    return times


def _percent(ratios: list[float]) -> str:
    low, _, high = quantiles(ratios, n=4)
    return f"{100 * (median(ratios) - 1):+.1f} % (half of them {100 * (low - 1):+.1f} to {100 * (high - 1):+.1f})"


def main() -> None:
    """Print the median of what the exporter adds to each storm, and of what nothing adds."""
    with built() as workload:
        _storms(workload)
        without, watched = [_storms(workload)], []
        for _ in range(_ROUNDS):
            with running("--mode=ebpf_core", "--config.file=/dev/null"):
                watched.append(_storms(workload))
            without.append(_storms(workload))
    for title in _STORMS:
        quiet = [each[title] for each in without]
        slowed = [each[title] / mean(quiet[at : at + 2]) for at, each in enumerate(watched)]
        noise = [each / mean((quiet[at], quiet[at + 2])) for at, each in enumerate(quiet[1:-1])]
        print(f"{title}: with the exporter {_percent(slowed)}, without it {_percent(noise)}")


if __name__ == "__main__":
    main()
