"""The sink `otlp`: how fast it sends, what it and its libraries take, and what becomes of records while the receiver is away."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from bench.exporter import free_port
from bench.handlers import folder, made_up, share_of, started
from bench.otlp_receiver import Receiver
from exporter.config.options import Config, JsonlOptions, OtlpOptions, Sinks
from exporter.handlers.parent import Handlers
from exporter.records.record import Record

_RECORDS = 100_000
_BATCH = 500
_AWAY_SECONDS = 20
_MANY = 1_000_000
"""More records than the sink keeps."""


def _varied(number: int) -> Record:
    """Return a record whose numbers do not compress better than real ones."""
    ns = random.randrange(10**9)
    return made_up(number)._replace(ended_ns=time.time_ns() + ns, runtime_ns=ns, cpu_ns=ns // 3, ppid=ns % 4_000_000)


def _receive(port: int, pipe: Connection) -> None:
    """Receive until asked; then tell how many records came, and how many different ones."""
    receiver = Receiver(port)
    pipe.send(None)
    pipe.recv()
    pids = [each.value.int_value for record in receiver.records for each in record.attributes if each.key == "process.pid"]
    pipe.send((len(pids), len(set(pids))))


class _Received:
    """The receiver, in a process of its own."""

    def __init__(self, port: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_receive, args=(port, theirs), daemon=True)
        self._process.start()
        self._pipe.recv()

    def counts(self) -> tuple[int, int]:
        self._pipe.send(None)
        found: tuple[int, int] = self._pipe.recv()
        self._process.join()
        return found


@contextmanager
def _sinks(name: str, port: int) -> Iterator[Sinks]:
    with folder() as path:
        otlp = OtlpOptions(endpoint=f"http://127.0.0.1:{port}") if "otlp" in name else OtlpOptions()
        yield Sinks(JsonlOptions(path=str(path / "records.jsonl")) if "jsonl" in name else JsonlOptions(), otlp=otlp)


def _offer(handlers: Handlers, records: list[Record], seconds: float) -> None:
    """Offer records within so many seconds, or as fast as they are taken."""
    began = time.monotonic()
    for at in range(0, len(records), _BATCH):
        handlers.offer(records[at : at + _BATCH])
        time.sleep(max(0.0, began + seconds * (at + _BATCH) / len(records) - time.monotonic()))
        while handlers._feed._bytes > 4 << 20:  # noqa: SLF001
            time.sleep(0.001)


def _throughput(name: str) -> None:
    port = free_port()
    with _sinks(name, port) as sinks:
        receiver = _Received(port) if "otlp" in name else None
        handlers, child = started(Config(sinks=sinks))
        idle = child.peak_mib()
        records = [_varied(number) for number in range(_RECORDS)]
        began, cpu = time.monotonic(), child.cpu_seconds()
        _offer(handlers, records, 0)
        while any(each.handled + each.lost < _RECORDS for each in handlers.status().handlers):
            time.sleep(0.01)
        took, spent, peak = time.monotonic() - began, child.cpu_seconds() - cpu, child.peak_mib()
        handlers.close()
        came = "" if receiver is None else ", received {} ({} different)".format(*receiver.counts())
        print(
            f"{name}: {_RECORDS / took:,.0f} records/s, child {spent / _RECORDS * 1e6:.0f} us/record, "
            f"its RSS {idle:.0f} MiB before, {peak:.0f} MiB at most; {share_of(handlers)}{came}"
        )


def _outage(seconds: float) -> None:
    """Offer records while the receiver is away, then let it come."""
    port = free_port()
    with _sinks("jsonl+otlp", port) as sinks:
        handlers, child = started(Config(sinks=sinks))
        records = [_varied(number) for number in range(_RECORDS)]
        own = _rss_mib()
        _offer(handlers, records, seconds)
        away = child.peak_mib()
        receiver, back = _Received(port), time.monotonic()
        while any(each.handled + each.lost < _RECORDS for each in handlers.status().handlers):
            time.sleep(0.05)
        took, peak = time.monotonic() - back, child.peak_mib()
        handlers.close()
        came, different = receiver.counts()
        print(
            f"receiver away for {seconds:.0f} s, {_RECORDS} records meanwhile: {share_of(handlers)}; received {came} ({different} "
            f"different), the last {took:.0f} s after its return; child's RSS {away:.0f} MiB while it was away, {peak:.0f} MiB at most; "
            f"exporter's RSS {own:.0f} MiB before, {_rss_mib():.0f} MiB after"
        )


def _never(n: int) -> None:
    """Offer more records than the sink keeps, with no receiver at all."""
    with _sinks("otlp", free_port()) as sinks:
        handlers, child = started(Config(sinks=sinks))
        for at in range(0, n, _RECORDS):
            _offer(handlers, [_varied(at + number) for number in range(_RECORDS)], 0)
        while handlers._feed or handlers._read_page().done < n:  # noqa: SLF001
            time.sleep(0.05)
        lost, peak = handlers.status().handlers[0].lost, child.peak_mib()
        began = time.monotonic()
        handlers.close()
        print(
            f"no receiver, {n} records: {n - lost} kept, {lost} lost, child's RSS {peak:.0f} MiB at most; "
            f"after closing, in {time.monotonic() - began:.1f} s: {share_of(handlers)}"
        )


def _rss_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def main() -> None:
    """Print everything."""
    for name in ("jsonl", "otlp", "jsonl+otlp"):
        _throughput(name)
    _outage(_AWAY_SECONDS)
    _never(_MANY)


if __name__ == "__main__":
    main()
