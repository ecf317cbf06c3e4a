"""What other tools print is read as they print it, and drawn as a picture that browsers accept."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from bench.peers import PEERS
from bench.plot import bars

TOLD = {
    "this exporter, ebpf_core": (
        'shortproc_comm_exits_total{comm="peer-tiny",outcome="ok"} 1.0\n'
        'shortproc_comm_exits_total{comm="peer-tiny",outcome="ok"} 2.0\n'
        'shortproc_comm_exits_total{comm="peer-tiny",outcome="error"} 0.0\n'
    ),
    "bpftrace, prints each": "Attaching 1 probe...\n12 peer-tiny\n13 peer-tiny2\n14 peer-tiny\n",
    "bpftrace, counts in a map": "Attaching 1 probe...\n\n@[sh]: 7\n@[peer-tiny]: 2\n",
    "bpftrace, histogram of runtimes": (
        "@h[sh]: \n[64K, 128K)            7 |@@@@@|\n\n"
        "@h[peer-tiny]: \n[256K, 512K)           1 |@@@@@|\n[512K, 1M)             1 |@@@@@|\n\n"
    ),
    "execsnoop (libbpf-tools)": "PCOMM            PID    PPID   RET ARGS\npeer-tiny        5      4        0 /tmp/x/peer-tiny\n" * 2
    + "peer-storm       6      4        0 /tmp/x/peer-storm forkexec 2 /tmp/x/peer-tiny\n",
    "forkstat": "Time     Event   PID Info   Duration Process\n" + "22:26:37 exit  26119      0   0.000s peer-tiny\n" * 2,
    "atop, process accounting": (
        "PRG vm 1796077597 2026/11/30 22:26:37 4891 26337 (peer-tiny) E 0 0 26337 1 0 1796077597 () 15763\n" * 2
        + "PRG vm 1796077597 2026/11/30 22:26:37 4891 26338 (peer-tiny) S 0 0 26338 1 0 1796077597 () 15763\n"
    ),
    "process-exporter": 'namedprocess_namegroup_num_procs{groupname="peer-tiny"} 1\n' * 2,
}
"""Two processes each, beside others."""


@pytest.mark.parametrize("name", TOLD)
def test_processes_that_a_tool_has_caught(name: str) -> None:
    """A comparison must not blame a tool for what its reader missed."""
    peer = next(each for each in PEERS if each.name == name)
    assert peer.caught(TOLD[name], "peer-tiny") == 2


def test_a_picture_is_well_formed() -> None:
    """Names and figures are there, whatever characters a name has."""
    picture = ET.fromstring(bars({"a < b": {"this exporter": 5000, "x & y": 0.0}, "c": {"this exporter": -1.0, "x & y": 0.5}}))
    words = [each.text for each in picture.iter() if each.tag.endswith("text")]
    assert words == ["this exporter", "x & y", "a < b", "5,000", "0.0", "c", "-1.0", "0.5"]
