"""User names and passwords. bcrypt is slow on purpose, so checks run one at a time, each once, and unknown clients cannot delay others.

- Results are remembered by a keyed hash: the right password of each user, and the most recent wrong ones. Wrong passwords never displace
  right ones, so known clients never wait.
- An unknown name costs a bcrypt too, with the hash of some user. So the time does not reveal which names exist.
- Only a few checks may wait, and fewer from one address. Other clients are told to retry.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

MOST_REMEMBERED = 1000
"""Most wrong passwords that are remembered, for all users together."""
MOST_WAITING = 8
MOST_WAITING_OF_ONE_PEER = 2
WAIT_SECONDS = 5.0
MOST_COST = 16

_HASH = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_LONGEST = 72
"""bcrypt ignores longer input."""


def refusal(hashed: str) -> str | None:
    """Return why a text is not a valid hash, or None if it is one. The reason never contains the text, which may be a password."""
    match = _HASH.fullmatch(hashed)
    if match is None:
        return "not a bcrypt hash: make one with htpasswd -nBC 10 '' ($2y$10$ and 53 characters)"
    if not 4 <= int(match[1]) <= MOST_COST:
        return f"bcrypt cost {match[1]} is not from 4 to {MOST_COST}: a scrape would not wait for a higher one"
    try:
        import bcrypt  # noqa: PLC0415 - most run without
    except ImportError as error:
        return f"needs the Python package bcrypt, which cannot be imported: {error}"
    try:
        bcrypt.hashpw(b"", f"{hashed[:4]}04{hashed[6:29]}".encode())  # the same salt, at the lowest cost
    except ValueError:
        return "not a bcrypt hash: its salt is invalid"
    return None


class Users:
    """Checks passwords against hashes. `hashes` are valid, by user name. Thread-safe."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        from bcrypt import checkpw  # noqa: PLC0415

        self._checkpw = checkpw
        self._hashes = {name.encode(): hashed.encode() for name, hashed in hashes.items()}
        self._all = list(self._hashes.values())
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._right: dict[bytes, bytes] = {}
        self._wrong: OrderedDict[bytes, None] = OrderedDict()
        self._waiting: Counter[str] = Counter()
        self._turn = threading.Lock()

    def verify(self, name: bytes, password: bytes, peer: str) -> bool | None:
        """Return whether it is the user's password; None if too many checks wait. `peer` is the address of the client."""
        digest = self._digest(len(name).to_bytes(4, "big") + name + password[:_LONGEST])
        known = self._remembered(name, digest)
        if known is not None:
            return known
        with self._place(peer) as free:
            if not free or not self._turn.acquire(timeout=WAIT_SECONDS):
                return None
            try:
                known = self._remembered(name, digest)  # it may have been checked in the meantime
                if known is None:
                    known = self._check(name, password[:_LONGEST])
                    self._remember(name, digest, known)
                return known
            finally:
                self._turn.release()

    def _check(self, name: bytes, password: bytes) -> bool:
        hashed = self._hashes.get(name)
        # An unknown name always gets the hash of the same user, or the time would reveal that it is unknown
        somebodys = hashed or self._all[int.from_bytes(self._digest(name), "big") % len(self._all)]
        try:
            return self._checkpw(password, somebodys) and hashed is not None
        except ValueError:  # bcrypt before 4 rejects null characters
            return False

    def _remembered(self, name: bytes, digest: bytes) -> bool | None:
        with self._lock:
            if hmac.compare_digest(self._right.get(name, b""), digest):
                return True
            if digest in self._wrong:
                self._wrong.move_to_end(digest)
                return False
        return None

    def _remember(self, name: bytes, digest: bytes, known: bool) -> None:
        with self._lock:
            if known:
                self._right[name] = digest
            else:
                self._wrong[digest] = None
                if len(self._wrong) > MOST_REMEMBERED:
                    self._wrong.popitem(last=False)

    @contextmanager
    def _place(self, peer: str) -> Iterator[bool]:
        with self._lock:
            free = self._waiting.total() < MOST_WAITING and self._waiting[peer] < MOST_WAITING_OF_ONE_PEER
            self._waiting[peer] += free
        try:
            yield free
        finally:
            with self._lock:
                self._waiting[peer] -= free
                if not self._waiting[peer]:
                    del self._waiting[peer]

    def _digest(self, data: bytes) -> bytes:
        return hashlib.blake2b(data, key=self._key, digest_size=32).digest()
