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
from exporter.model.lifetimes import COARSE, FINE, Buckets

BPF = Path(__file__).parents[2] / "bpf"
COUNTED = {schema: lifetimes.buckets(schema) for schema in (COARSE, FINE)}
HISTOGRAMS = st.dictionaries(st.sampled_from(COUNTED[FINE].indexes), st.integers(1, 2**40))

InC = Callable[[int, bool], int]
"""The position of a time among the buckets, fine or not."""


def bound_ns(index: int, schema: int) -> int:
    """The longest time in a bucket, found without the code under test."""
    parts = 2**schema
    least, most = 0, 2**62
    while least < most:
        middle = (least + most + 1) // 2
        fits = middle**parts <= NS**parts << index if index >= 0 else middle**parts << -index <= NS**parts
        least, most = (middle, most) if fits else (least, middle - 1)
    return least


BOUNDS = {schema: {index: bound_ns(index, schema) for index in each.indexes[:-1]} for schema, each in COUNTED.items()}
EACH = [pytest.param(schema, index, id=f"{schema}, {index}") for schema, bounds in BOUNDS.items() for index in bounds]


@pytest.mark.parametrize(("schema", "index"), EACH)
def test_a_time_that_equals_a_bound_is_below_it(schema: int, index: int) -> None:
    """As Prometheus defines it; one nanosecond more is in the next bucket."""
    buckets, bound = COUNTED[schema], BOUNDS[schema][index]
    assert buckets.index_of(bound) == index
    assert buckets.index_of(bound + 1) == index + 1
    assert buckets.upper_bound_ns(index) == bound


@pytest.mark.parametrize("buckets", COUNTED.values(), ids=COUNTED)
def test_whole_powers_are_bounds(buckets: Buckets) -> None:
    """One second is a bound, and each power of two of it; the first and the last bucket have the rest."""
    bounds, power = BOUNDS[buckets.schema], 2**buckets.schema
    assert (bounds[0], bounds[power], bounds[-3 * power]) == (NS, 2 * NS, NS // 8)
    assert bounds[buckets.indexes[0]] == NS >> -lifetimes.SHORTEST_EXPONENT
    assert buckets.index_of(0) == buckets.indexes[0]
    assert buckets.index_of(2**63) == buckets.indexes[-1]
    assert 7.6 * 3600 * NS < bounds[buckets.indexes[-2]] < 8.4 * 3600 * NS


@pytest.mark.parametrize(("shown", "counted"), [(0, 3), (1, 3), (2, 3), (3, 3), (4, 4)])
def test_only_two_schemas_are_counted(shown: int, counted: int) -> None:
    """Finer buckets cost memory, so only those who ask for them have them; coarser ones would save little."""
    assert lifetimes.buckets(shown).schema == counted
    assert lifetimes.buckets(counted) is lifetimes.buckets(shown)


@pytest.fixture(scope="module")
def in_c(tmp_path_factory: pytest.TempPathFactory) -> InC:
    """What the BPF programs compute, compiled for this machine."""
    compiler = shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    folder = tmp_path_factory.mktemp("lifetimes")
    source, library = folder / "lifetimes.c", folder / "lifetimes.so"
    source.write_text(
        '#include <linux/types.h>\n#include "native.h"\n__u64 position(__u64 ns, int is_fine) { return lifetime_of(ns, is_fine); }\n'
    )
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", f"-I{BPF}", "-D__always_inline=inline", "-o", library, source], check=True)
    function = ctypes.CDLL(str(library)).position
    function.argtypes, function.restype = [ctypes.c_uint64, ctypes.c_int], ctypes.c_uint64
    return lambda ns, is_fine: int(function(ns, is_fine))


@pytest.mark.parametrize("buckets", COUNTED.values(), ids=COUNTED)
def test_c_and_python_agree_at_all_bounds(in_c: InC, buckets: Buckets) -> None:
    """Where rounding would show."""
    times = [0, 1, 2**62 - 1, *(bound + more for bound in BOUNDS[buckets.schema].values() for more in (-1, 0, 1))]
    positions = [in_c(ns, buckets.schema == FINE) for ns in times]
    assert [buckets.indexes[at] for at in positions] == [buckets.index_of(ns) for ns in times]
    assert set(positions) == set(range(len(buckets.indexes)))


@pytest.mark.parametrize("buckets", COUNTED.values(), ids=COUNTED)
@given(st.integers(0, 61).flatmap(lambda bits: st.integers(0, 2 << bits)))
def test_c_and_python_agree(in_c: InC, buckets: Buckets, ns: int) -> None:
    """For any time, short or long."""
    ns = min(ns, 2**62 - 1)
    assert buckets.indexes[in_c(ns, buckets.schema == FINE)] == buckets.index_of(ns)


@given(HISTOGRAMS, st.integers(0, FINE))
def test_coarser_buckets_have_the_same_counts(histogram: dict[int, int], schema: int) -> None:
    """Each is in the bucket that contains the finer one."""
    fine = COUNTED[FINE]
    wider = fine.coarser(histogram, schema)
    assert sum(wider.values()) == sum(histogram.values())
    for index in histogram:
        (around,) = fine.coarser({index: 1}, schema)
        assert (around - 1) / 2**schema <= (index - 1) / 2**FINE < index / 2**FINE <= around / 2**schema
    if schema == FINE:
        assert wider == histogram


@pytest.mark.parametrize("schema", range(FINE))
def test_coarser_buckets_are_those_of_the_time_itself(schema: int) -> None:
    """Whether a time is counted finely and merged, or coarsely, at all bounds that both have."""
    fine, coarse = COUNTED[FINE], Buckets(schema)
    for ns in (bound + more for bound in BOUNDS[FINE].values() for more in (0, 1) if bound < 2**14 * NS):
        assert fine.coarser({fine.index_of(ns): 1}, schema) == {coarse.index_of(ns): 1}


@given(st.lists(HISTOGRAMS, max_size=4))
def test_sums_have_all_counts(histograms: list[dict[int, int]]) -> None:
    """The whole is the sum over names, and leaves the parts as they are."""
    before = [dict(each) for each in histograms]
    whole = lifetimes.added(histograms)
    assert histograms == before
    assert all(n == sum(each.get(index, 0) for each in histograms) for index, n in whole.items())
    assert set(whole) == {index for each in histograms for index in each}
