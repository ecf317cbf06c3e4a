"""`make pictures` makes the pictures of the page in docs/images.

Their processes are made up: a build host whose backup script began to run a command for each file 20 seconds ago.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from exporter.model import NS, Gauges, Outcome
from exporter.model.counts import Breakdown, Counts
from exporter.model.dimensions import COMM, OWNER, PARENT, SPAWNER, USER, Dimension
from exporter.model.ledger import Ledger
from exporter.model.owner import Owner
from exporter.records.hub import Hub
from exporter.records.record import Record
from exporter.supervision.completeness import Sample
from tests.e2e.browser import PROGRAM, Tab, tab
from tests.unit.pages import record, served
from tests.unit.snapshots import CONFIG, ended, snapshot, totalled

_FOLDER = Path(__file__).parents[2] / "docs/images"
_CLIP = """(() => { const box = document.querySelector('.flame').closest('section').getBoundingClientRect();
return { x: box.x, y: box.y + scrollY, width: box.width, height: box.height, scale: 1 }; })()"""
_HISTORY_SECONDS, _BURST_SECONDS, _DRAIN_SECONDS = 600, 20, 5


class Kind(NamedTuple):
    """Processes of one kind, and how many of them exit in a second."""

    stack: str
    user: str
    owner: Owner
    per_second: int
    failed: int = 0
    in_burst: int = 0

    @property
    def names(self) -> list[bytes]:
        return [name.encode() for name in self.stack.split(";")]


_RUNNER, _CRON = Owner("service", "gitlab-runner.service"), Owner("service", "cron.service")
_CART, _SSH = Owner("pod", "", "shop", "cart-0", "web"), Owner("session", "ssh.service")
_KINDS = (
    Kind("systemd;gitlab-runner;bash;make;sh;gcc;cc1", "gitlab-runner", _RUNNER, 4),
    Kind("systemd;gitlab-runner;bash;make;sh;gcc;as", "gitlab-runner", _RUNNER, 4),
    Kind("systemd;gitlab-runner;bash;make;sh;gcc", "gitlab-runner", _RUNNER, 4),
    Kind("systemd;gitlab-runner;bash;make;sh", "gitlab-runner", _RUNNER, 5),
    Kind("systemd;gitlab-runner;bash;make;sh;gcc;collect2;ld", "gitlab-runner", _RUNNER, 1),
    Kind("systemd;cron;cron;sh;backup.sh;stat", "root", _CRON, 1, in_burst=310),
    Kind("systemd;cron;cron;sh;backup.sh;gzip", "root", _CRON, 1, in_burst=9),
    Kind("systemd;cron;cron;sh", "root", _CRON, 1),
    Kind("systemd;containerd-shim;entrypoint.sh;curl", "web", _CART, 2, failed=1),
    Kind("systemd;containerd-shim;entrypoint.sh;sleep", "web", _CART, 2),
    Kind("systemd;sshd;sshd;bash;git;git-remote-http", "anna", _SSH, 1),
    Kind("systemd;sshd;sshd;bash;grep", "anna", _SSH, 1, failed=1),
)


def main() -> str | None:
    """Write the pictures, or return why not."""
    if PROGRAM is None:
        return "no Chromium or Chrome is installed"
    hub, ledger = _hub(), _ledger()
    shown = snapshot(Counts(), Gauges(dict(enumerate(_seconds()[-60:]))), sample=Sample(72_940, 72_915))
    host = mock.patch.object(os, "uname", return_value=os.uname_result(("Linux", "build-7", "", "", "")))
    with tempfile.TemporaryDirectory() as folder, tab(Path(folder)) as browser, served(shown, hub) as site, host:
        site.supervisor.change(view=ledger.view(Counts()), why="It is the best mode.")
        site.supervisor.shown_standings = ledger.standings()
        begin = time.monotonic_ns() // NS - len(_seconds())
        for second, n in enumerate(_seconds(), begin):
            site.pages._timeline.note(second + 1, {second: n})
        for name, picture in _taken(browser, f"{site.url}/"):
            (_FOLDER / f"{name}.png").write_bytes(picture)
    return None


def _seconds() -> list[int]:
    """Short processes in each second."""
    usual = sum(kind.per_second for kind in _KINDS)
    burst = sum(kind.in_burst for kind in _KINDS)
    seconds = [usual + (13 * second) % 17 - 8 for second in range(_HISTORY_SECONDS)]
    return [n + (burst - (7 * n) % 40 if second >= _HISTORY_SECONDS - _BURST_SECONDS else 0) for second, n in enumerate(seconds)]


def _ledger() -> Ledger:
    """What the supervisor would have drained."""
    now = [0]
    ledger = Ledger(CONFIG.caps, 0, lambda: now[-1])
    for second in range(0, _HISTORY_SECONDS, _DRAIN_SECONDS):
        now.append(second * NS)
        is_burst = second >= _HISTORY_SECONDS - _BURST_SECONDS
        counts = Counts(by={dimension: Breakdown() for dimension in (COMM, PARENT, SPAWNER, USER, OWNER)})
        for kind in _KINDS:
            *ancestors, comm = kind.names
            exits = ended(_DRAIN_SECONDS * (kind.per_second + is_burst * kind.in_burst), execs=_DRAIN_SECONDS * kind.per_second)
            exits.add(ended(_DRAIN_SECONDS * kind.failed, Outcome.ERROR))
            keys: dict[Dimension[Any], Any] = {COMM: comm, PARENT: ancestors[-1], SPAWNER: ancestors[1], USER: kind.user, OWNER: kind.owner}
            for dimension, key in keys.items():
                counts.by[dimension].row(key).add(exits)
        ledger.absorb(totalled(counts))
    return ledger


def _hub() -> Hub:
    """The records of the last minutes; in the end those that the table shows."""
    hub = Hub(1000)
    for kind in _KINDS:
        hub.publish(_records(kind, 30 * kind.per_second + kind.in_burst))
    mixed = [each for kind in _KINDS for each in _records(kind, 1 + kind.in_burst // 10)]
    hub.publish(sorted(mixed, key=lambda each: each.ended_ns))
    return hub


def _records(kind: Kind, n: int) -> list[Record]:
    *ancestors, comm = kind.names
    plain = record(comm=comm, parent_comm=ancestors[-1], spawner=ancestors[1], lineage=tuple(ancestors), user=kind.user)
    owner: dict[str, Any] = dict(zip(("owner_kind", "unit", "namespace", "pod", "container"), kind.owner, strict=True))
    plain = plain._replace(**owner)
    return [
        plain._replace(
            ended_ns=plain.ended_ns + (37 * number + len(comm)) * 1_000_000,
            pid=2000 + 7 * number + len(comm),
            runtime_ns=300_000 + 17_000 * ((11 * number) % 97),
            cpu_ns=250_000 + 9_000 * ((11 * number) % 97),
            outcome=Outcome.ERROR if number < kind.failed else Outcome.OK,
            code=int(number < kind.failed),
        )
        for number in range(n)
    ]


def _taken(browser: Tab, url: str) -> Iterator[tuple[str, bytes]]:
    """Return name and PNG of each."""
    for name, width, height, scale, scheme in (
        ("page", 1600, 1000, 1, "light"),
        ("page-dark", 1600, 1000, 1, "dark"),
        ("phone", 360, 740, 2, "light"),
    ):
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=width < 800)
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        browser.open(f"{url}?{name}")
        browser.wait_for(
            "document.querySelectorAll('.flame [role=treeitem]').length > 1 && document.getElementById('live').textContent === 'Live.'"
        )
        yield name, browser.picture()
    browser.call("Emulation.setDeviceMetricsOverride", width=1000, height=900, deviceScaleFactor=1, mobile=False)
    browser.wait_for("innerWidth === 1000")
    yield "lineage", browser.picture(captureBeyondViewport=True, clip=browser.eval(_CLIP))


if __name__ == "__main__":
    sys.exit(main())
