"""On which kernels programs are attached to functions: a wrong answer can hang a host."""

from __future__ import annotations

import os
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, cast

import pytest

from exporter.kernel.bpf import ENOTSUPP
from exporter.loaders import failures
from exporter.model.failures import FailedStarts

if TYPE_CHECKING:
    from exporter.loaders.libbpf import Libbpf

IMAGE, WAITS, SAFELY = failures._SAFE_DETACH, failures._WAITS_FOR_TASKS, failures._WAITS_SAFELY


class Btf:
    """A kernel, by the names that its BTF has."""

    def __init__(self, names: AbstractSet[str]) -> None:
        self._names = names

    def has_struct(self, name: str) -> bool:
        return name in self._names

    def has_member(self, _: str, member: str) -> bool:
        return member in self._names


def refusal(names: AbstractSet[str], wanted: FailedStarts) -> str | None:
    return failures._refusal(cast("Libbpf", Btf(names)), wanted)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ({IMAGE}, None),  # without preemption, such as 5.10 of Debian: a detach does not wait for tasks
        ({IMAGE, WAITS}, "can hang"),  # such as 6.1 of Debian
        ({IMAGE, WAITS, SAFELY}, None),
        ({WAITS, SAFELY}, "cannot detach such a program safely"),
    ],
)
def test_kernels_that_can_hang_are_left_alone(names: AbstractSet[str], reason: str | None) -> None:
    """By default the exporter must not be what hangs a host."""
    found = refusal(names, FailedStarts.AUTO)
    assert found is None if reason is None else found and reason in found


def test_an_operator_can_decide_otherwise() -> None:
    """`always` covers a kernel that can hang, but not one that can crash."""
    assert refusal({IMAGE, WAITS}, FailedStarts.ALWAYS) is None
    assert refusal(set(), FailedStarts.ALWAYS)
    assert refusal({IMAGE}, FailedStarts.NEVER) == "detection.failed_starts is never"


def test_a_kernel_without_trampolines_for_its_functions_says_so() -> None:
    """Linux 6.1 of arm64 is such: its errno has no text."""
    reason = failures._rejected(OSError(ENOTSUPP, os.strerror(ENOTSUPP), "bpf_program__attach"))
    assert "arm64, Linux 6.4" in reason
