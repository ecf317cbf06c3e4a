"""Makes answers: each once for all clients that wait for it, one at a time, and those for scrapes first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_MOST_SECONDS = 0.05
"""Longest wait for what is urgent. An answer in many pieces waits before each."""
_ARRIVING_SECONDS = 0.005
"""Time for a new client to be served."""


class Urgent:
    """Tells whether a client has just arrived, or a scrape is being made. Python runs one thread at a time, so other answers pause then."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._scrapes = 0
        self._arriving_until = 0.0

    def arrived(self) -> None:
        """Note that there is a new connection: perhaps it will ask for a scrape."""
        self._arriving_until = time.monotonic() + _ARRIVING_SECONDS

    def __enter__(self) -> None:
        with self._changed:
            self._scrapes += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._scrapes -= 1
            self._changed.notify_all()

    def give_way(self) -> None:
        """Wait while something is urgent, but not for long. Call it between steps of about a millisecond."""
        begun = now = time.monotonic()
        while (self._scrapes or now < self._arriving_until) and now < begun + _MOST_SECONDS:
            with self._changed:
                self._changed.wait_for(lambda: not self._scrapes, _MOST_SECONDS)
            time.sleep(max(0.0, min(self._arriving_until - time.monotonic(), _ARRIVING_SECONDS)))
            now = time.monotonic()


class Shared:
    """Answers of one kind, by key. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._not_begun: dict[Hashable, Future[Any]] = {}
        self.turn = threading.Lock()
        """Held while one is made."""

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` returns, or raise what it raises. It begins after this call, so nobody gets an old answer."""
        with self._lock:
            waiting = self._not_begun.get(key)
            if waiting is None:
                mine: Future[T] = Future()
                self._not_begun[key] = mine
        if waiting is not None:
            shared: T = waiting.result()
            return shared
        with self.turn:
            with self._lock:
                del self._not_begun[key]
            try:
                mine.set_result(make())
            except BaseException as error:  # noqa: BLE001 - raised by `result`
                mine.set_exception(error)
        return mine.result()
