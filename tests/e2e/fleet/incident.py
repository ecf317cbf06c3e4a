"""An incident on this machine, as the pictures of the dashboards show it: a service in a crash loop, and then a backup that runs a command
for each file. Exporters in several modes see it, each as far as its mode can.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bench.exporter import free_port
from bench.prometheus import INSTALLED, THREE
from exporter.kernel.cgroups import hierarchy
from tests.e2e.fleet.scraped import Fleet, Window, configured, scraping, started

BEST, DOWN = "ebpf", "off"
QUIET_SECONDS, CRASHING_SECONDS, BURST_SECONDS = 120, 120, 40
SHOWN = Window(seconds=QUIET_SECONDS + CRASHING_SECONDS + BURST_SECONDS, step=2, rate=20)
_WARMING_SECONDS = 20

_PROGRAMS = {
    "gitlab-runner": "while :; do make -s -B; sleep 0.5; done",
    "healthcheck": "while :; do date >/dev/null; sleep 0.4; done",
    "cart": "while :; do cart-server; sleep 0.3; done",
    "cart-server": "cat /nonexistent/cart.yml",
    "backup.sh": "while :; do for file in /usr/bin/*; do stat $file; md5sum $file; sleep 0.002; done; done",
}
_MAKEFILE = "all: one two\none two:\n\t@echo 'int main(void) { return 0; }' | cc -x c -o /dev/null -\n"


@contextmanager
def incident(folder: Path) -> Iterator[Fleet]:
    """Run it, and give what a Prometheus knows in its last second; this takes as long as the picture shows."""
    folder.chmod(0o755)  # services run as other users
    for name, script in _PROGRAMS.items():
        (folder / name).write_text(f"#!/bin/sh\nexec >/dev/null 2>&1\n{script}\n")
        (folder / name).chmod(0o755)
    (folder / "Makefile").write_text(_MAKEFILE)
    inside = folder / "inside"
    inside.write_text(f'#!/bin/sh\n{folder}/healthcheck &\n"$@"\n')
    inside.chmod(0o755)
    with ExitStack() as stack:
        hosts = {name: f"127.0.0.1:{free_port()}" for name in (BEST, "netlink", "scan", "container", DOWN)}
        named = [{"targets": [address], "labels": {"instance": name}} for name, address in hosts.items()]
        release = THREE if THREE.program("prometheus") else INSTALLED
        fleet = Fleet(stack.enter_context(scraping(folder / "rules", release, named, native=True)), hosts)
        sinks = {"sinks": {"jsonl": {"path": f"{folder}/records/records.jsonl"}}}
        (folder / "records").mkdir()
        os.chown(folder / "records", 65534, 65534)
        whole = configured(folder / "whole.yml", sinks)
        scanning = configured(folder / "scanning.yml", {"detection": {"mode": "fast_scan"}})
        stack.enter_context(started(hosts[BEST], "", "--mode=ebpf_core", f"--config.file={whole}"))
        stack.enter_context(started(hosts["netlink"], "setpriv --bounding-set=-bpf,-perfmon,-sys_admin"))
        stack.enter_context(started(hosts["scan"], "", f"--config.file={scanning}"))
        contained = hosts["container"], f"unshare --pid --fork --mount-proc {inside}", "--mode=scan"
        first = stack.enter_context(ExitStack())
        first.enter_context(started(*contained))
        stack.enter_context(_service("gitlab-runner", folder, "games"))
        stack.enter_context(_service("healthcheck", folder, "nobody"))
        time.sleep(_WARMING_SECONDS + QUIET_SECONDS)
        stack.enter_context(_service("cart", folder, "www-data"))
        first.close()
        stack.enter_context(started(*contained))
        time.sleep(CRASHING_SECONDS)
        stack.enter_context(_service("backup.sh", folder, "root"))
        time.sleep(BURST_SECONDS)
        yield fleet


@contextmanager
def _service(name: str, folder: Path, user: str) -> Iterator[None]:
    """Run a program in the cgroup that systemd would make for it."""
    group = Path(hierarchy().root, "system.slice", f"{name.removesuffix('.sh')}.service")
    group.mkdir(parents=True)
    enter = 'echo 0 >"$0/cgroup.procs"; exec setpriv --reuid="$1" --regid=nogroup --clear-groups "$2"'
    environment = {"PATH": f"{folder}:{os.environ['PATH']}"}
    child = subprocess.Popen(["sh", "-c", enter, group, user, folder / name], env=environment, cwd=folder, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for _ in range(100):  # it is busy until the last one is gone
            with suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.05)
        with suppress(OSError):
            group.parent.rmdir()  # not where systemd has one
