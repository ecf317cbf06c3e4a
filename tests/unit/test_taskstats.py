"""What taskstats sends, in the layouts of all versions that are about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.kernel.taskstats import Stats
from exporter.model import Lost
from tests.unit.netlink_messages import FAMILY, decode_bytes, recorded, taskstats

STATS = Stats(pid=812, tgid=811, ppid=1, comm=b"worker", exit_code=0x700, group_dead=True, uid=1000, elapsed_us=1234, cpu_us=999)


def test_recorded_messages() -> None:
    """Version 16, threads and processes, with what is known of the programs that were run."""
    found = [decode_bytes(each) for each in recorded("root-taskstats")]
    assert all(isinstance(each, Stats) for each in found)
    stats = [each for each in found if isinstance(each, Stats)]
    assert sum(each.comm == b"nothing" and each.group_dead for each in stats) == 4
    leaders = [each for each in stats if each.exit_code == 0x700]
    assert [each.group_dead and each.pid != each.tgid for each in leaders] == [True, True]
    assert sum(each.exit_code == 9 for each in stats) == 2
    assert len({each.tgid for each in stats if each.group_dead}) == sum(each.group_dead for each in stats)


@pytest.mark.parametrize("version", [12, 13, 14, 15, 16, 17])
def test_versions_with_a_group(version: int) -> None:
    """Version 15 put new fields in the middle, and 16 took them out again."""
    assert decode_bytes(taskstats(version, STATS)) == STATS
    assert decode_bytes(taskstats(version, STATS, pad=True)) == STATS


@pytest.mark.parametrize("version", [8, 9, 10, 11])
def test_versions_without_a_group(version: int) -> None:
    """There AGROUP's bit says nothing, and the thread's process is for the connector to tell."""
    assert decode_bytes(taskstats(version, STATS)) == STATS._replace(tgid=0, group_dead=False)


@pytest.mark.parametrize("version", [8, 10, 11, 12, 15, 16])
def test_a_message_cut_anywhere_is_counted(version: int) -> None:
    """Half a message is worth nothing, and must not be read as a whole one."""
    whole = taskstats(version, STATS)
    for n in range(len(whole)):
        assert decode_bytes(whole[:n]) is Lost.MALFORMED


def test_recorded_messages_cut_anywhere() -> None:
    """The real ones too, with the group's statistics behind the thread's."""
    for whole in recorded("root-taskstats")[:4]:
        assert {decode_bytes(whole[:n]) for n in range(len(whole))} == {Lost.MALFORMED}


def test_other_messages_are_none_of_ours() -> None:
    """An acknowledgement is no corrupt message."""
    assert decode_bytes((36).to_bytes(4, "little") + (2).to_bytes(2, "little") + bytes(30)) is None


def test_a_version_that_lies_about_its_size() -> None:
    """The length of the attribute bounds what is read."""
    message = bytearray(taskstats(11, STATS))
    at = message.index((11).to_bytes(2, "little"), 32)
    message[at] = 12
    assert decode_bytes(bytes(message)) is Lost.MALFORMED


@given(st.binary(max_size=700))
def test_random_bytes_are_no_crash(message: bytes) -> None:
    """Nothing that arrives may stop the exporter."""
    decode_bytes(message)


@given(st.data())
def test_flipped_bytes_are_no_crash(data: st.DataObject) -> None:
    """Lengths and versions that lie are found out, or read as what they say."""
    message = bytearray(taskstats(data.draw(st.sampled_from([8, 11, 12, 15, 16])), STATS))
    for _ in range(data.draw(st.integers(1, 8))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    assert isinstance(decode_bytes(bytes(message)), Stats | Lost | None)


def test_the_family_is_the_recordings() -> None:
    """Otherwise the tests above would pass on nothing."""
    assert int.from_bytes(recorded("root-taskstats")[0][4:6], "little") == FAMILY
