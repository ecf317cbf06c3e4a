"""`python -m tests.e2e.picture` makes docs/images/lineage.png: the flame graph on the page, of records made for it."""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path

from exporter.records.hub import Hub
from tests.e2e.browser import PROGRAM, Tab, tab
from tests.unit.pages import record, served
from tests.unit.snapshots import ordinary

_PICTURE = Path(__file__).parents[2] / "docs/images/lineage.png"
_STACKS = {
    "systemd;cron;cron;sh;backup.sh;tar": 40,
    "systemd;cron;cron;sh;backup.sh;gzip": 40,
    "systemd;cron;cron;sh;backup.sh;stat": 260,
    "systemd;cron;cron;sh;backup.sh": 20,
    "systemd;cron;cron;sh": 60,
    "systemd;gitlab-runner;bash;make;sh;gcc;cc1": 150,
    "systemd;gitlab-runner;bash;make;sh;gcc;as": 150,
    "systemd;gitlab-runner;bash;make;sh;gcc;collect2;ld": 30,
    "systemd;gitlab-runner;bash;make;sh;gcc": 160,
    "systemd;gitlab-runner;bash;make;sh": 190,
    "systemd;containerd-shim;entrypoint.sh;curl": 90,
    "systemd;containerd-shim;entrypoint.sh;sleep": 90,
    "systemd;containerd-shim;runc;runc": 45,
    "systemd;sshd;sshd;bash;git;git-remote-http": 25,
    "systemd;sshd;sshd;bash;grep": 35,
}
_CLIP = """(() => { const box = document.querySelector('.flame').closest('section').getBoundingClientRect();
return { x: box.x - 16, y: box.y + scrollY - 16, width: box.width + 32, height: box.height + 32, scale: 1 }; })()"""


def main() -> str | None:
    """Write the picture, or return why not."""
    if PROGRAM is None:
        return "no Chromium or Chrome is installed"
    hub = Hub(1)
    for stack, n in _STACKS.items():
        *ancestors, comm = (name.encode() for name in stack.split(";"))
        hub.publish([record(0, comm, lineage=tuple(ancestors))] * n)
    with tempfile.TemporaryDirectory() as folder, tab(Path(folder)) as browser, served(ordinary(), hub) as site:
        _PICTURE.write_bytes(_taken(browser, f"{site.url}/"))
    return None


def _taken(browser: Tab, url: str) -> bytes:
    browser.call("Emulation.setDeviceMetricsOverride", width=1000, height=900, deviceScaleFactor=1, mobile=False)
    browser.open(url)
    browser.wait_for("document.querySelectorAll('.flame [role=treeitem]').length > 1")
    clip = browser.eval(_CLIP)
    return base64.b64decode(browser.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"])


if __name__ == "__main__":
    sys.exit(main())
