"""Records for snoop: a typical one, and any."""

from __future__ import annotations

from hypothesis import strategies as st

from exporter.model import NS, Mode, Outcome, comm_text
from exporter.records.attributed import ADDED
from exporter.records.record import Record

OK, ERROR, SIGNAL, UNKNOWN = Outcome
TYPICAL = Record(
    1_700_000_000_123_456_789,
    1_234_567,
    4242,
    1,
    0,
    b"true",
    b"make",
    b"/bin/true",
    OK,
    0,
    987_000,
    b"/user.slice",
    Mode.EBPF_CORE,
    b"runner",
    "ci",
    "service",
    "runner.service",
)

wholes = st.integers(0, 2**32 - 1)
spans = st.integers(0, 3600 * NS)
ends = st.one_of(
    st.just((OK, 0)),
    st.tuples(st.just(ERROR), st.integers(1, 255)),
    st.tuples(st.just(SIGNAL), st.integers(1, 64)),
    st.just((UNKNOWN, None)),
)
records = st.builds(
    lambda end, **fields: Record(outcome=end[0], code=end[1], **fields),
    ends,
    ended_ns=st.integers(0, 2**62),
    runtime_ns=spans,
    pid=wholes,
    ppid=wholes,
    uid=st.none() | wholes,
    comm=st.binary(max_size=15),
    parent_comm=st.binary(max_size=15),
    exe=st.binary(max_size=256),
    cpu_ns=st.none() | spans,
    cgroup=st.binary(max_size=100),
    mode=st.sampled_from(Mode),
    spawner=st.binary(max_size=15),
    oom_killed=st.none() | st.booleans(),
    arguments=st.none() | st.binary(max_size=50),
    arguments_cut=st.none() | st.booleans(),
    lineage=st.lists(st.binary(max_size=15), max_size=17).map(tuple),
    **{name: st.binary(max_size=20).map(comm_text) for name in ADDED},
)
