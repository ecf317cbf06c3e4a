"""The first row of both pages: what says whether something is wrong."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.builders import stat
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models.common import BigValueTextMode

from grafana import looks
from grafana.looks import COUNT, SHARE, USUAL, Frame, Panel, now, tiles
from grafana.queries import Scope

_SIZE = (6, 4)


def row(scope: Scope, where: str = "") -> Iterable[Panel]:
    """Of the host where it is worst, or of the only one; `where` says which, for pages with many."""
    frame = Frame(
        "Burst",
        f"Short processes per second, as a multiple of the mean in the time range (at least 7/s){where}.",
        USUAL,
        _SIZE,
        "shortprocburst",
    )
    yield _worst(frame, scope.times_usual(), looks.steps(looks.GOOD, (3, looks.WARN), (10, looks.BAD))).decimals(1)
    frame = Frame(
        "Failures",
        f"Fraction of the processes that exit with an error or a signal{where}.",
        SHARE,
        _SIZE,
        "shortproccrashloop",
    )
    yield _worst(frame, scope.failed_share(), looks.steps(looks.GOOD, (0.5, looks.WARN), (0.9, looks.BAD)))
    frame = Frame(
        "Firing alerts",
        "Number of firing alerts of the rules in deploy/prometheus, 0 also where these are not loaded.",
        COUNT,
        _SIZE,
        "runbook",
    )
    firing = tiles(frame, now(f"count({scope.firing()}) or vector(0)"))
    yield firing.thresholds(looks.steps(looks.GOOD, (1, looks.BAD))).color_scheme(looks.by_threshold())
    frame = Frame(
        "CPU of short processes",
        f"CPU time of short processes as a fraction of all CPUs of the host{where}.",
        SHARE,
        _SIZE,
        "shortproccpuhigh",
    )
    yield _worst(frame, scope.short_cpu_of_host(), looks.steps(looks.GOOD, (0.25, looks.WARN), (0.5, looks.BAD)))


def _worst(frame: Frame, by_host: str, colours: ThresholdsConfig) -> stat.Panel:
    tile = tiles(frame, now(f"topk(1, {by_host})", "{{instance}}"))
    return tile.text_mode(BigValueTextMode.VALUE_AND_NAME).thresholds(colours).color_scheme(looks.by_threshold())
