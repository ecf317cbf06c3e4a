"""Who may stay where there are too few places for all.

- Each connection takes one of `Limits.connections` places, or of fewer if the limit of open files is low. If all are taken, a new
  connection replaces one that waits for a request: a real client sends its request at once. If there is none, it replaces a client that
  has not read its answer for a while. If all others work on answers, it waits briefly, and is then rejected.
- Of these, only `Limits.large` may get the page or answers of the API at one time. So scrapes and health checks always find a place.
- Streams have places of their own (`stream.py`).
"""

from __future__ import annotations

import resource
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from exporter.web.limits import Activity, Limits

if TYPE_CHECKING:
    from exporter.web.connection import Connection

_WAIT_SECONDS = 0.25
_LOOK_SECONDS = 0.01
_LEAST = 16
_CROWD, _QUIET = 16, 4
"""Connections at one time, after which memory is worth returning, and below which it is."""


class Places:
    """The connections of a server. Thread-safe."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._most = min(limits.connections, max(_LEAST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))
        self._changed = threading.Condition()
        self._connections: set[Connection] = set()
        self._crowded = False

    def all(self) -> list[Connection]:
        """Return all connections."""
        with self._changed:
            return list(self._connections)

    def add(self, connection: Connection) -> None:
        """Take a place; see `make_room`."""
        with self._changed:
            self._connections.add(connection)
            self._crowded |= len(self._connections) > _CROWD

    def remove(self, connection: Connection) -> None:
        """Release a place."""
        with self._changed:
            self._connections.discard(connection)
            self._changed.notify_all()

    def make_room(self, of: int | None = None) -> bool:
        """Drop a connection if there are `of` (by default all) or more. Returns whether there are fewer now. May wait briefly."""
        most = self._most if of is None else of
        deadline = time.monotonic() + _WAIT_SECONDS
        while not (room := self._has_room(most)) and time.monotonic() < deadline:
            with self._changed:
                self._changed.wait(_LOOK_SECONDS)
        return room

    def crowd_has_gone(self) -> bool:
        """Return whether there was a crowd since the last call that returned this, and is no more."""
        with self._changed:
            gone = self._crowded and len(self._connections) <= _QUIET
            self._crowded &= not gone
            return gone

    def wait_until_empty(self, seconds: float) -> None:
        """Wait until all connections have ended, or the time is up."""
        with self._changed:
            self._changed.wait_for(lambda: not self._connections, seconds)

    def take_large(self, connection: Connection) -> bool:
        """Return whether a connection may get a large answer now. It has then to call `release_large`."""
        with self._changed:
            large = [each for each in self._connections if each.large]
            stalled = None
            if len(large) >= self._limits.large:
                stalled = self._longest(large, Activity.AWAITS_READER, self._limits.stalled_seconds)
                if stalled is None:
                    return False
            connection.large = True
        if stalled is not None:
            self._drop(stalled)
        return True

    def release_large(self, connection: Connection) -> None:
        """Return such a place."""
        connection.large = False

    def _has_room(self, most: int) -> bool:
        present = [each for each in self.all() if not each.streams]
        if len(present) < most:
            return True
        # Without the lock, which every connection needs to end
        dropped = self._longest(present, Activity.AWAITS_REQUEST, 0.0)
        dropped = dropped or self._longest(present, Activity.AWAITS_READER, self._limits.stalled_seconds)
        if dropped is None:
            return False
        self._drop(dropped)
        return True

    def _longest(self, of: list[Connection], activity: Activity, seconds: float) -> Connection | None:
        """Return the connection that has waited longest for its client, and for `seconds`, from the address with the most such connections.

        So a host that connects again and again replaces its own connections, not those of others.
        """
        before = time.monotonic() - seconds
        states = {each: each.state for each in of}
        waiting = [each for each, (doing, since) in states.items() if doing is activity and since <= before]
        places = Counter(each.peer for each in waiting)
        waiting.sort(key=lambda each: (-places[each.peer], states[each][1]))
        return next((each for each in waiting if activity is Activity.AWAITS_READER or not each.has_input()), None)

    def _drop(self, connection: Connection) -> None:
        self.remove(connection)
        connection.drop()
