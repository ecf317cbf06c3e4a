"""The bounds of the server, and what a connection does."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Limits:
    connections: int = 128
    """Many, so that a flood of silent clients does not push out one that is about to send its request. A thread takes about 50 KiB."""
    large: int = 8
    """Clients that may get the page or answers of the API at one time."""
    request_seconds: float = 5.0
    """From the start of a connection, or the first byte of a later request, to the end of the request. Includes the TLS handshake."""
    idle_seconds: float = 120.0
    """From an answer to the first byte of the next request."""
    answer_seconds: float = 10.0
    """Time for a client to read an answer, without the time that its pieces take to be made."""
    stalled_seconds: float = 0.25
    """After this time, a client that has not read its answer may lose its place to another."""


class Activity(Enum):
    AWAITS_REQUEST = "awaits request"
    WORKS = "works"
    AWAITS_READER = "awaits reader"
