"""The inputs that fuzzing found worth keeping (tests/fuzz), without the fuzzer."""

from __future__ import annotations

import pytest

from tests.fuzz.corpus import kept
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_kept_inputs_are_no_findings(target: str) -> None:
    """What a kernel or an attacker once sent does no harm later either."""
    inputs = kept(target)
    assert inputs
    for data in inputs:
        TARGETS[target](data)
