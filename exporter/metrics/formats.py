"""The formats that `/metrics` can have, as HTTP names them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Format:
    """One format."""

    media_type: str
    wanted: Mapping[str, Collection[str]]
    """Parameters that tell it from others of its type, with the values that a client may give; "" stands for none."""
    parameters: str
    """Those of the Content-Type."""
    names_escaping: bool = True
    """Whether the Content-Type says how names are escaped."""


TEXT = Format("text/plain", {"version": ("", "0.0.4")}, "version=0.0.4; charset=utf-8", names_escaping=False)
TEXT_1 = Format("text/plain", {"version": ("1.0.0",)}, "version=1.0.0; charset=utf-8")
OPENMETRICS = Format("application/openmetrics-text", {"version": ("", "1.0.0")}, "version=1.0.0; charset=utf-8")
PROTOBUF = Format(
    "application/vnd.google.protobuf",
    {"proto": ("io.prometheus.client.MetricFamily",), "encoding": ("delimited",)},
    "proto=io.prometheus.client.MetricFamily; encoding=delimited",
)
FORMATS = (TEXT, OPENMETRICS, TEXT_1, PROTOBUF)
"""The first one for clients that take any."""
