"""The buckets of native histograms, which C and Python must find alike."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.model import NS, lifetimes
from exporter.model.lifetimes import INDEXES, SCHEMA

BPF = Path(__file__).parents[2] / "bpf"
HISTOGRAMS = st.dictionaries(st.sampled_from(INDEXES), st.integers(1, 2**40))


def bound_ns(index: int) -> int:
    """The longest time in a bucket, found without the code under test."""
    least, most = 0, 2**62
    while least < most:
        middle = (least + most + 1) // 2
        fits = middle**8 <= NS**8 << index if index >= 0 else middle**8 << -index <= NS**8
        least, most = (middle, most) if fits else (least, middle - 1)
    return least


BOUNDS = {index: bound_ns(index) for index in INDEXES[:-1]}


@pytest.mark.parametrize("index", INDEXES[:-1])
def test_a_time_that_equals_a_bound_is_below_it(index: int) -> None:
    """As Prometheus defines it; one nanosecond more is in the next bucket."""
    assert lifetimes.index_of(BOUNDS[index]) == index
    assert lifetimes.index_of(BOUNDS[index] + 1) == index + 1


def test_whole_powers_are_bounds() -> None:
    """Eight buckets are a power of two, and one second is a bound."""
    assert (BOUNDS[0], BOUNDS[8], BOUNDS[-24]) == (NS, 2 * NS, NS // 8)
    assert lifetimes.index_of(0) == INDEXES[0]
    assert lifetimes.index_of(2**63) == INDEXES[-1]


@pytest.fixture(scope="module")
def in_c(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], int]:
    """What the BPF programs compute, compiled for this machine."""
    compiler = shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    folder = tmp_path_factory.mktemp("lifetimes")
    source, library = folder / "lifetimes.c", folder / "lifetimes.so"
    source.write_text('#include <linux/types.h>\n#include "native.h"\n__u64 position(__u64 ns) { return lifetime_of(ns); }\n')
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", f"-I{BPF}", "-D__always_inline=inline", "-o", library, source], check=True)
    function = ctypes.CDLL(str(library)).position
    function.argtypes, function.restype = [ctypes.c_uint64], ctypes.c_uint64
    return lambda ns: INDEXES[function(ns)]


def test_c_and_python_agree_at_all_bounds(in_c: Callable[[int], int]) -> None:
    """Where rounding would show."""
    times = [0, 1, 2**62 - 1, *(bound + more for bound in BOUNDS.values() for more in (-1, 0, 1))]
    assert [in_c(ns) for ns in times] == [lifetimes.index_of(ns) for ns in times]


@given(st.integers(0, 61).flatmap(lambda bits: st.integers(0, 2 << bits)))
def test_c_and_python_agree(in_c: Callable[[int], int], ns: int) -> None:
    """For any time, short or long."""
    ns = min(ns, 2**62 - 1)
    assert in_c(ns) == lifetimes.index_of(ns)


@given(HISTOGRAMS, st.integers(0, SCHEMA))
def test_coarser_buckets_have_the_same_counts(histogram: dict[int, int], schema: int) -> None:
    """Each is in the bucket that contains the finer one."""
    wider = lifetimes.coarser(histogram, schema)
    assert sum(wider.values()) == sum(histogram.values())
    for index in histogram:
        (around,) = lifetimes.coarser({index: 1}, schema)
        assert (around - 1) / 2**schema <= (index - 1) / 2**SCHEMA < index / 2**SCHEMA <= around / 2**schema
    if schema == SCHEMA:
        assert wider == histogram


@given(st.lists(HISTOGRAMS, max_size=4))
def test_sums_have_all_counts(histograms: list[dict[int, int]]) -> None:
    """The whole is the sum over names, and leaves the parts as they are."""
    before = [dict(each) for each in histograms]
    whole = lifetimes.added(histograms)
    assert histograms == before
    assert all(n == sum(each.get(index, 0) for each in histograms) for index, n in whole.items())
    assert set(whole) == {index for each in histograms for index in each}
