"""The real handlers' child, as whoever runs the tests, with a module of handlers that do what handlers must not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exporter.handlers.parent import Handlers, HandlerStatus
from exporter.handlers.plan import Plan, Planned
from exporter.model import NS, Mode, Outcome
from exporter.records.record import Record

MODULE = """
import os, sys, time
from exporter.handlers import Handler

class Keep(Handler):
    def __init__(self, path):
        self.path = path
    def handle(self, batch):
        with open(self.path, "a") as file:
            file.writelines(f"{record!r}\\n" for record in batch)

class Even(Keep):
    def filter(self, record):
        return record.pid % 2 == 0

class Bad(Handler):
    def __init__(self, what, at):
        self.what, self.at = what, at
    def handle(self, batch):
        if any(record.pid == self.at for record in batch):
            getattr(self, self.what)()
    def raises(self): raise ValueError("bad record")
    def exits(self): sys.exit(4)
    def hangs(self): time.sleep(3600)
    def holds_the_gil(self): sum(range(10**12))
    def eats_memory(self): bytearray(600 << 20)
    def crashes(self): os._exit(3)

class Facts(Handler):
    def __init__(self, path, secret=""):
        with open(path, "w") as file:
            print(os.getcwd(), sorted(os.environ), sys.argv, sys.stdin.read(), file=file)
        print("printed by a handler")
    def handle(self, batch): pass

class NotMade(Handler):
    def __init__(self): raise OSError("no such server")
"""


def record(number: int = 1, **changes: Any) -> Record:
    plain = Record(
        time.time_ns(),
        2 * NS // 1000,
        number,
        1,
        1000,
        b"cc1",
        b"make",
        b"/usr/bin/cc1",
        Outcome.OK,
        0,
        1_500_000,
        b"/user.slice",
        Mode.EBPF_CORE,
        b"runner",
        "ci",
        "pod",
        "",
        "shop",
        "cart-0",
        "web",
    )
    return plain._replace(**changes)


def eventually(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for it."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)


def planned(folder: Path, name: str, timeout_seconds: float = 30.0, **options: Any) -> Planned:
    (folder / "some_handlers.py").write_text(MODULE)
    return Planned(name, f"some_handlers:{name}", (str(folder),), options=options, timeout_seconds=timeout_seconds)


@contextmanager
def running(*handlers: Planned) -> Iterator[Handlers]:
    """Without a change of user."""
    consumer = Handlers(Plan(handlers, live=True, owners=(os.geteuid(),)))
    consumer.start()
    try:
        yield consumer
    finally:
        consumer.close(60)


def of(consumer: Handlers, label: str) -> HandlerStatus:
    return next(each for each in consumer.status().handlers if each.handler == label)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
