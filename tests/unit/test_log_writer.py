"""A log that nobody reads, and standard descriptors that are closed."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.exporter import free_port
from exporter.process import log
from exporter.process.log_writer import MOST_BYTES, LogWriter
from tests.unit.pages import soon

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The smallest, which is full."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writing, b"x" * 4095 + b"\n")
    yield reading, writing
    os.close(reading)
    os.close(writing)


def test_a_log_that_nobody_reads_holds_up_nobody(pipe: tuple[int, int]) -> None:
    """A logging call took the thread, and the lock of the log, for as long as nobody read."""
    reading, writing = pipe
    writer = LogWriter(writing, log.Logfmt())
    for number in range(MOST_BYTES // 50):
        writer.handle(logging.makeLogRecord({"msg": f"line {number}", "levelno": logging.INFO, "levelname": "INFO"}))
    assert writer.dropped > 100
    received = b""
    for _ in soon():
        received += os.read(reading, 1 << 20)
        told = [int(line.split(b"lines=")[1]) for line in received.splitlines() if b'level=warn msg="log lines were dropped"' in line]
        if received.count(b'msg="line ') == MOST_BYTES // 50 - writer.dropped:
            break
    assert sum(told) == writer.dropped


def test_a_log_without_reader_ends_nothing() -> None:
    """The other end of standard error may be gone."""
    reading, writing = os.pipe()
    os.close(reading)
    writer = LogWriter(writing, log.Logfmt())
    for _ in range(3):
        writer.handle(logging.makeLogRecord({"msg": "x", "levelno": logging.INFO, "levelname": "INFO"}))
        writer.finish()
    assert (writer.dropped, writer._bytes) == (0, 0)
    os.close(writing)


def test_serving_and_the_end_with_a_log_that_nobody_reads(pipe: tuple[int, int], tmp_path: Path) -> None:
    """All 32 connections waited for their own log lines then, and SIGTERM ended nothing."""
    port = free_port()
    drain = os.open(f"/proc/self/fd/{pipe[0]}", os.O_RDONLY | os.O_NONBLOCK)
    os.read(drain, 4096)  # the first lines are written before there are threads
    os.close(drain)
    command = [sys.executable, "-m", "exporter", "--mode=scan", "--log.level=debug", f"--web.listen-address=127.0.0.1:{port}"]
    with subprocess.Popen(command, cwd=CHECKOUT, stderr=pipe[1], stdout=subprocess.DEVNULL) as child:
        try:
            for _ in soon():
                with contextlib.suppress(OSError):
                    if ask(port, "/-/ready") == 200:
                        break
            os.set_blocking(pipe[1], False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(pipe[1], b"x")
            os.set_blocking(pipe[1], True)
            assert {ask(port, path) for path in ["/metrics", "/-/healthy", "/x"] * 12} == {200, 404}
            child.terminate()
            assert child.wait(5) == 0
        finally:
            child.kill()


def ask(port: int, path: str) -> int:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status


@pytest.mark.parametrize("closed", [[2], [0, 1, 2]])
def test_closed_descriptors(closed: list[int]) -> None:
    """What the exporter opened first became its standard error, and that of its children: they wrote into it, or could not start."""
    script = (
        "import os, sys; sys.argv[1:] = ['--version']\n"
        "from exporter.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "for fd in (0, 1, 2): assert os.get_inheritable(fd)\n"
        "assert all(os.readlink(f'/proc/self/fd/{fd}') == os.devnull for fd in map(int, os.environ['CLOSED'].split()))\n"
        "assert sys.stderr is not None\n"
    )
    environment = {**os.environ, "CLOSED": " ".join(map(str, closed))}
    shell = f'exec {" ".join(f"{fd}>&-" for fd in closed)}; exec "$@"'
    subprocess.run(["bash", "-c", shell, "-", sys.executable, "-c", script], cwd=CHECKOUT, env=environment, check=True)
