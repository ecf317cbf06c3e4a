"""Names of containers that are gone before anybody asks for them, as those of `docker run --rm`.

Counts come from the kernel up to 6 s after the exit. By then Docker and Podman have removed the state of such a container, and containerd
that of any container that has exited. So the state of each new container is read when its runtime writes it, which inotify(7) tells:

- Docker and containerd make a directory for it. The file follows within milliseconds, so it is tried a few times.
- Podman and CRI-O replace the file with all containers.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence

from exporter.kernel.inotify import IN_CREATE, IN_IGNORED, IN_MOVED_TO, IN_ONLYDIR, Event, Inotify
from exporter.loaders.container_state import CONTAINER_ID, MAX_IDS, ContainerState
from exporter.model.owner import ContainerName

_MAX_SEEN = 1024
_MAX_EXPECTED = 4 * MAX_IDS
_MAX_LISTED = 8192
_EXPECTED_SECONDS = 2.0
_AGAIN_SECONDS = 0.05


class ContainerWatch(ContainerState):
    """State that is read as it is written, by whoever waits for `descriptors` and then calls `read_new`. Not safe for concurrent use.

    The directories of runtimes are watched from the first question on: most hosts have no containers.
    """

    def __init__(self, root: str = "") -> None:
        super().__init__(root)
        self._inotify: Inotify | None = None
        self._watches: dict[int, str] = {}
        self._expected: dict[str, float] = {}
        """Ids whose state is not written yet, and until when it is tried."""
        self._seen: dict[str, ContainerName] = {}
        """At most 1,024, the oldest first."""
        self._stored: Mapping[str, ContainerName] = {}

    @property
    def descriptors(self) -> Sequence[int]:
        """What to wait for with select(2)."""
        return [] if self._inotify is None else [self._inotify.fd]

    @property
    def timeout(self) -> float | None:
        """The most seconds to wait; None if nothing is expected."""
        return _AGAIN_SECONDS if self._expected else None

    def names(self, ids: Iterable[str]) -> dict[str, ContainerName]:
        """See `ContainerState`. Containers that are gone have the name that they had at first."""
        self._watch()
        wanted = list(ids)[:MAX_IDS]
        seen = {each: self._seen[each] for each in wanted if isinstance(each, str) and each in self._seen}
        return seen | super().names(wanted)

    def read_new(self) -> None:
        """Read the state of new containers, of at most 32 at once."""
        for event in self._events():
            name = os.fsdecode(event.name)
            if event.mask & IN_IGNORED:
                self._watches.pop(event.watch, None)
            elif event.mask & IN_CREATE and CONTAINER_ID.fullmatch(name):
                self._expect([name])
            elif event.mask & IN_CREATE:
                self._watch()  # it may be a namespace of containerd
        before, self._stored = self._stored, self.stored()
        self._remember({each: name for each, name in self._stored.items() if each not in before})
        tried = list(self._expected)[:MAX_IDS]
        self._remember(super().names(tried))
        for each in tried:
            until = self._expected.pop(each)
            if each not in self._seen and until > time.monotonic():
                self._expected[each] = until  # after those that were not tried

    def _expect(self, names: Iterable[str]) -> None:
        until = time.monotonic() + _EXPECTED_SECONDS
        for name in names:
            if len(self._expected) < _MAX_EXPECTED and CONTAINER_ID.fullmatch(name):
                self._expected.setdefault(name, until)

    def _watch(self) -> None:
        """Watch the directories that exist by now, and expect the state of the containers in them."""
        with contextlib.suppress(OSError):  # without, names of containers that are gone are not known
            self._inotify = self._inotify or Inotify()
        watched = set(self._watches.values())
        for paths, mask in ((self.folders(), IN_CREATE), (self.stores(), IN_MOVED_TO)):
            for path in paths:
                if self._inotify is not None and path not in watched:
                    with contextlib.suppress(OSError):
                        self._watches[self._inotify.watch(path, mask | IN_ONLYDIR)] = path
                        if mask == IN_CREATE:
                            with os.scandir(path) as entries:
                                self._expect(entry.name for entry, _ in zip(entries, range(_MAX_LISTED), strict=False))

    def _events(self) -> list[Event]:
        with contextlib.suppress(OSError):
            return list(self._inotify.events()) if self._inotify is not None else []
        return []

    def _remember(self, names: Mapping[str, ContainerName]) -> None:
        for container_id, name in names.items():
            self._seen.setdefault(container_id, name)
        while len(self._seen) > _MAX_SEEN:
            del self._seen[next(iter(self._seen))]
