"""A burst goes all the way: exporter, Prometheus over TLS with a password, Alertmanager, receiver; and the alert resolves. In each release.

The files are those that are shipped, with seconds in place of minutes and a lower limit.
"""

from __future__ import annotations

import http
import http.server
import json
import re
import shutil
import signal
import socketserver
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.exporter import free_port
from bench.prometheus import INSTALLED, THREE, Release
from bench.workloads import Workload, built
from exporter.loaders.core import refusal
from tests.folders import public

DEPLOY = Path(__file__).parents[2] / "deploy"
USER, PASSWORD = "prometheus", "e2e-password"
HASH = "$2b$04$LzMh0hkBFq/llnJwTK9Ux.5zDbBY4EOBPpsQn5nvAXsfJoYlUyLzO"
NAME = "ShortprocBurstLimit"
LIMIT, BURST = 300, 400
WAIT_SECONDS = 60
RELEASES = {
    name: each
    for name, each in {"installed": INSTALLED, "3": THREE}.items()
    if each.program("prometheus") and each.program("prometheus-alertmanager")
}
MISSING = [program for program in ("prometheus", "prometheus-alertmanager", "openssl") if shutil.which(program) is None]

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

Alert = dict[str, Any]


class Receiver:
    """What Alertmanager tells: each alert of ours with the path that it was sent to."""

    def __init__(self) -> None:
        self.alerts: list[tuple[str, Alert]] = []

    @contextmanager
    def listening(self) -> Iterator[int]:
        """Take notifications on a loopback port."""
        alerts = self.alerts

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                alerts.extend((self.path, alert) for alert in body["alerts"])
                self.send_response(http.HTTPStatus.OK)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
                pass

        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            try:
                yield server.server_address[1]
            finally:
                server.shutdown()
                thread.join()

    def told(self, status: str, since: int) -> tuple[int, str, Alert] | None:
        """The first notification from number `since` on that the limit's alert is in that state: number, path, alert."""
        for number, (path, alert) in enumerate(self.alerts[since:], since):
            if alert["labels"]["alertname"] == NAME and alert["status"] == status:
                return number, path, alert
        return None


@contextmanager
def child(*command: object) -> Iterator[None]:
    """Run a program until the end of the block, and end it by its id."""
    process = subprocess.Popen([str(word) for word in command])
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(look: Callable[[], Any], what: str) -> Any:
    """Look again until there is something."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        if seen := look():
            return seen
        time.sleep(0.2)
    pytest.fail(f"no {what} in {WAIT_SECONDS} s")


def answer(url: str, folder: Path | None = None, password: str | None = None) -> tuple[int, bytes]:
    """Status and body; status 0 where there is no answer."""
    request = urllib.request.Request(url)
    if password is not None:
        manager = urllib.request.HTTPPasswordMgrWithPriorAuth()
        manager.add_password(None, url, USER, password, is_authenticated=True)
        handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPBasicAuthHandler(manager)]
    else:
        handlers = []
    if folder is not None:
        handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(folder / "shortproc-ca.pem"))))
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=5) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b""
    except OSError:
        return 0, b""


def certified(folder: Path) -> Path:
    """A certificate of its own for 127.0.0.1 and a user with a password; gives the exporter's web configuration."""
    names = ["-subj", "/CN=e2e", "-addext", "subjectAltName=IP:127.0.0.1"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(folder / "key.pem")]
    subprocess.run(
        ["openssl", "req", "-x509", *key, "-days", "2", *names, "-out", str(folder / "shortproc-ca.pem")], check=True, capture_output=True
    )
    (folder / "key.pem").chmod(0o644)
    public(folder)  # the exporter reads them as the user that it has become
    (folder / "shortproc-password").write_text(PASSWORD)
    web = folder / "web.yml"
    web.write_text(f"tls_server_config: {{cert_file: shortproc-ca.pem, key_file: key.pem}}\nbasic_auth_users: {{{USER}: {HASH}}}\n")
    return web


def changed(text: str, *changes: tuple[str, str]) -> str:
    """Each pattern must still be there, or the test would run what is not shipped."""
    for pattern, replacement in changes:
        text, found = re.subn(pattern, replacement, text)
        assert found, pattern
    return text


def shortened(folder: Path, exporter: int, alertmanager: int, receiver: int) -> None:
    """The shipped configuration, in seconds and for these ports."""
    (folder / "rules").mkdir()
    rules = DEPLOY / "prometheus" / "rules"
    changes = {
        "settings.yml": [(r"interval: 30s", "interval: 500ms"), (r"vector\(1000\)", f"vector({LIMIT})")],
        "recording.yml": [(r"interval: 30s", "interval: 500ms"), (r"\[2m\]", "[2s]")],
        "alerts.yml": [(r"interval: 30s", "interval: 500ms"), (r"for: 2m", "for: 1s")],
        "comm.yml": [(r"interval: 30s", "interval: 500ms")],
    }
    for name, to_change in changes.items():
        (folder / "rules" / name).write_text(changed((rules / name).read_text(), *to_change))
    prometheus = changed(
        (DEPLOY / "prometheus" / "prometheus.yml").read_text(),
        (r"(_interval): 30s", r"\1: 500ms"),
        (r"#: ", ""),
        (r"localhost:10199", f"127.0.0.1:{exporter}"),
        (r"localhost:9093", f"127.0.0.1:{alertmanager}"),
    )
    (folder / "prometheus.yml").write_text(prometheus)
    routes = changed(
        (DEPLOY / "alertmanager" / "alertmanager.yml").read_text(),
        (r"group_wait: 30s", "group_wait: 0s"),
        (r"group_interval: 5m", "group_interval: 1s"),
        (r"localhost:9099", f"127.0.0.1:{receiver}"),
    )
    (folder / "alertmanager.yml").write_text(routes)


@contextmanager
def watching(folder: Path, release: Release, exporter: int, receiver: Receiver) -> Iterator[str]:
    """Prometheus and Alertmanager of a release, with the shipped configuration; gives the URL of the first."""
    alertmanager, prometheus = free_port(), free_port()
    folder.mkdir()
    for file in ("shortproc-ca.pem", "shortproc-password"):
        shutil.copy(folder.parent / file, folder)
    with receiver.listening() as port:
        shortened(folder, exporter, alertmanager, port)
        prometheus_command = (
            release.program("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{prometheus}",
            "--rules.alert.resend-delay=1s",
            "--log.level=error",
        )
        alertmanager_command = (
            release.program("prometheus-alertmanager"),
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{alertmanager}",
            "--cluster.listen-address=",
            "--log.level=error",
        )
        with child(*prometheus_command), child(*alertmanager_command):
            yield f"http://127.0.0.1:{prometheus}"


@contextmanager
def everything(folder: Path) -> Iterator[tuple[str, dict[str, Receiver]]]:
    """One exporter, watched by each release that is there; gives its address, and by the URL of each Prometheus what is received."""
    exporter = free_port()
    web = certified(folder)
    with ExitStack() as stack:
        received = {}
        for name, release in RELEASES.items():  # first: Prometheus takes five seconds to look for what to scrape
            receiver = Receiver()
            received[stack.enter_context(watching(folder / name, release, exporter, receiver))] = receiver
        command = (sys.executable, "-m", "exporter", "--mode=ebpf_core", "--log.level=warn", f"--web.config.file={web}")
        stack.enter_context(child(*command, f"--web.listen-address=127.0.0.1:{exporter}"))
        yield f"127.0.0.1:{exporter}", received


def asked(prometheus: str, query: str) -> list[Alert]:
    """What Prometheus answers to an instant query."""
    status, body = answer(f"{prometheus}/api/v1/query?query={urllib.parse.quote(query)}")
    return json.loads(body)["data"]["result"] if status == http.HTTPStatus.OK else []


@contextmanager
def bursting(workload: Workload) -> Iterator[None]:
    """Processes of less than a millisecond, well above the limit, until the end of the block."""
    over = threading.Event()

    def storm() -> None:
        while not over.wait(0.2):
            workload.run("vfork", BURST)

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_burst_reaches_the_receiver_and_resolves(tmp_path: Path) -> None:
    """Each part is tested for itself elsewhere; this is what the user gets of them together."""
    if reason := refusal():
        pytest.skip(reason)
    with everything(tmp_path) as (exporter, received), built(storm="e2e-burst") as workload:

        def everywhere(query: str, what: str) -> None:
            for prometheus in received:
                until(partial(asked, prometheus, query), what)

        everywhere("up{job='shortproc'} == 1 and on () shortproc:setting:burst_limit_per_second", "scrape over TLS")
        url = f"https://{exporter}/metrics"
        assert answer(url, tmp_path, PASSWORD)[0] == http.HTTPStatus.OK
        assert answer(url, tmp_path)[0] == http.HTTPStatus.UNAUTHORIZED
        assert answer(url, tmp_path, "wrong")[0] == http.HTTPStatus.UNAUTHORIZED
        assert answer(f"http://{exporter}/metrics", None, PASSWORD)[0] != http.HTTPStatus.OK
        # others may run storms on this machine too
        everywhere(f"shortproc:short_ends:rate2m < {LIMIT} unless on () ALERTS{{alertname='{NAME}', alertstate='firing'}}", "quiet moment")
        before = {receiver: len(receiver.alerts) for receiver in received.values()}
        with bursting(workload):
            fired = {each: until(partial(each.told, "firing", since), "alert") for each, since in before.items()}
        for receiver, (told, path, alert) in fired.items():
            assert path == "/pager"
            assert alert["labels"] == {"alertname": NAME, "severity": "critical", "instance": exporter, "job": "shortproc"}
            assert alert["annotations"]["summary"] == f"Too many short processes on {exporter}"
            assert alert["annotations"]["runbook_url"].endswith("docs/runbook.md#shortprocburstlimit")
            _, resolved_path, resolved = until(partial(receiver.told, "resolved", told), "end of the alert")
            assert (resolved_path, resolved["fingerprint"]) == ("/pager", alert["fingerprint"])
