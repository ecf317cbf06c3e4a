"""Collects what `top` shows: records as they come, and the exact totals each second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from exporter.config.problems import one_line
from exporter.library.processes import Ended, Processes, Totals
from exporter.top.activity import Activity, Point, Points
from exporter.top.view import Scene

_EVERY_SECONDS = 1.0


class Watching:
    """A thread asks for the totals: those of an exporter come over the network."""

    def __init__(self, processes: Processes, host: str, now: Callable[[], int] = time.monotonic_ns) -> None:
        self._processes = processes
        self._host = host
        self._now = now
        self._activity = Activity(now())
        self._points = Points()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="totals", daemon=True)

    def start(self) -> None:
        """Begin to ask for totals."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._stopping.set()
        self._thread.join()

    def collect(self) -> bool:
        """Take the records that have come. Returns whether more may come."""
        batch, more = self._processes.pop()
        self._activity.add(batch, self._now())
        return more

    def scene(self) -> Scene:
        """Return what there is to show now."""
        with self._lock:
            points = self._points.copy()
        clock = time.strftime("%H:%M:%S")
        return Scene(self._host, clock, one_line(self._processes.description), self._activity, points, self._now())

    def frozen(self) -> Scene:
        """Return the same as a copy that never changes."""
        scene = self.scene()
        return scene._replace(activity=scene.activity.copy())

    def note(self) -> None:
        """Note the totals of now."""
        point = Point(self._now(), self._totals(), self._processes.dropped)
        with self._lock:
            self._points.add(point)

    def _totals(self) -> Totals | None:
        try:
            return self._processes.counts()
        except Ended:
            return None

    def _ask(self) -> None:
        self.note()
        while not self._stopping.wait(_EVERY_SECONDS):
            self.note()
