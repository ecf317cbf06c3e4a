"""A source that watches through `lifecycle.bcc.c`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from exporter.kernel.attached import Handover
from exporter.loaders.bcc import load_bcc, refusal
from exporter.model import Mode, RuntimeScale
from exporter.sources.ebpf.source import EbpfSource
from tests.kernel.programs import LOAD_SECONDS, SCALE, attached

_refusal = refusal()
needs_bcc = pytest.mark.skipif(_refusal is not None, reason=_refusal or "")


@contextmanager
def watching_bcc(
    scale: RuntimeScale = SCALE,
    *,
    comms: int = 0,
    use_headers: bool = False,
    use_ring: bool = True,
    use_rename_pid: bool = True,
    force_guard: bool = False,
    several_copies: bool | None = None,
    standby: bool = False,
    on_log: Callable[[str], None] = lambda line: None,
) -> Iterator[EbpfSource]:
    """Attach the programs for a while, without the kernel's headers unless told."""

    def load() -> Handover:
        return load_bcc(
            scale,
            on_log,
            comms=comms,
            use_headers=use_headers,
            use_ring=use_ring,
            use_rename_pid=use_rename_pid,
            force_guard=force_guard,
            several_copies=several_copies,
            timeout=LOAD_SECONDS,
        )

    with attached(Mode.EBPF_BCC, scale, load, standby=standby) as source:
        yield source
