"""Names of containers: from kubelet's log directories, and from the state of container runtimes, which only root can read.

All reading is done by a thread of its own, at most once a second, and without a lock that a caller waits for. The thread exists only while
a name is wanted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from exporter.attribution.pod_logs import CONTAINERS, PODS, PodLogs
from exporter.attribution.recent import Recent
from exporter.model import comm_text
from exporter.model.owner import ContainerName

logger = logging.getLogger(__name__)

RuntimeState = Callable[[Sequence[str]], Mapping[str, ContainerName]]
"""Returns the names of containers by id (64 hexadecimal digits), of at most `MAX_ASKED`. It may block for seconds."""

MAX_ASKED = 32
_MAX_ASKED_A_ROUND = 4 * MAX_ASKED
_WANTED_SECONDS = 15.0
_INTERVAL_SECONDS = 1.0
_MAX_WANTED = 1024
_MAX_NAMES = 4096
_MAX_LABEL = 255


class ContainerNames:
    """Create it before the privileges are dropped: the directories are watched from then on, even if only root can read them."""

    def __init__(self, pods: str = PODS, containers: str = CONTAINERS, runtime_state: RuntimeState | None = None) -> None:
        self._lock = threading.Lock()
        """Held for look-ups in memory only."""
        self._logs = PodLogs(pods, containers)
        self._state: Recent[str, ContainerName] = Recent(_MAX_NAMES)
        self._runtime_state = runtime_state
        self._wanted: dict[tuple[str, str], float] = {}
        """Container id and pod uid, and until when they are looked for."""
        self._thread: threading.Thread | None = None
        self._last_round = float("-inf")
        self._closed = threading.Event()

    def find(self, container_id: str, pod_uid: str) -> ContainerName:
        """Return what is known by now. What is not known is looked for in the background. Never blocks."""
        with self._lock:
            name = self._known(container_id, pod_uid)
            if not _complete(name, container_id, pod_uid) and not self._closed.is_set() and len(self._wanted) < _MAX_WANTED:
                self._wanted.setdefault((container_id, pod_uid), time.monotonic() + _WANTED_SECONDS)
                self._start_thread()
            return name

    def look_up(self) -> None:
        """Do one round: read new names, and ask for what is still wanted. Called by the thread."""
        names = self._logs.read()
        with self._lock:
            self._logs.add(names)
            now = time.monotonic()
            self._wanted = {keys: until for keys, until in self._wanted.items() if until > now and not _complete(self._known(*keys), *keys)}
            ask = [keys for keys in self._wanted if keys[0]][:_MAX_ASKED_A_ROUND]
            for keys in ask:  # to the end, so that those that are never found do not keep others from being asked for
                self._wanted[keys] = self._wanted.pop(keys)
        for at in range(0, len(ask) if self._runtime_state is not None else 0, MAX_ASKED):
            self._ask(ask[at : at + MAX_ASKED])
        with self._lock:
            self._wanted = {keys: until for keys, until in self._wanted.items() if not _complete(self._known(*keys), *keys)}

    def close(self) -> None:
        """Stop the thread."""
        self._closed.set()
        thread = self._thread
        if thread is not None:
            thread.join(_INTERVAL_SECONDS)
        if thread is None or not thread.is_alive():
            self._logs.close()

    def _ask(self, wanted: Sequence[tuple[str, str]]) -> None:
        found = self._runtime_state([container_id for container_id, _ in wanted]) if self._runtime_state is not None else {}
        with self._lock:
            for container_id, pod_uid in wanted:
                if (name := found.get(container_id)) is None:
                    continue
                name = ContainerName(*(None if each is None else _label(each) for each in name))
                self._state.put(container_id, name)
                if pod_uid and name.namespace and name.pod:
                    self._logs.add_pod(pod_uid, name.namespace, name.pod)

    def _known(self, container_id: str, pod_uid: str) -> ContainerName:
        logs = self._logs.find(container_id, pod_uid)
        state = self._state.get(container_id) or ContainerName()
        return ContainerName(*(a if a is not None else b for a, b in zip(logs, state, strict=True)))

    def _start_thread(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="container-names", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads now; the next miss tries again
                return
            self._thread = thread

    def _run(self) -> None:
        while not self._closed.wait(max(0.0, self._last_round + _INTERVAL_SECONDS - time.monotonic())):
            self._last_round = time.monotonic()
            try:
                self.look_up()
            except Exception:
                logger.exception("cannot look up the names of containers")
            with self._lock:
                if not self._wanted:
                    self._thread = None
                    return


def _complete(name: ContainerName, container_id: str, pod_uid: str) -> bool:
    return (not container_id or name.container is not None) and (not pod_uid or name.pod is not None)


def _label(name: str) -> str:
    return comm_text(name[:_MAX_LABEL].encode("utf-8", "surrogatepass"))
