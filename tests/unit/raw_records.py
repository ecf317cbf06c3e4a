"""Records as the kernel sends them, before they are decoded."""

from __future__ import annotations

import struct
from typing import Any

from exporter.kernel.layout import RECORD_FORMAT, RECORD_WITH_EXE_FORMAT, RecordWithExe


def raw_with_exe(**fields: Any) -> tuple[Any, ...]:
    """Return a record in the order of `RECORD_FIELDS`; fields that are not given are zero."""
    return struct.unpack(f"={RECORD_WITH_EXE_FORMAT}", RecordWithExe(**fields))


def raw(**fields: Any) -> tuple[Any, ...]:
    """Return it without the path, as the programs of `ebpf_core` send it."""
    return struct.unpack_from(f"={RECORD_FORMAT}", RecordWithExe(**fields))
