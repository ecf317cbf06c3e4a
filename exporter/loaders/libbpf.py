"""The functions of libbpf that loading needs, called by ctypes. Imported only in the child of a loader.

ABI: libbpf.so.1, stable since 1.0. Functions that return pointers return NULL and set errno (documentation of libbpf_get_error).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator, Mapping
from ctypes import POINTER, c_bool, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from functools import cached_property
from pathlib import Path

_PROTOTYPES: dict[str, tuple[type | None, list[type]]] = {
    "bpf_object__open_file": (c_void_p, [c_char_p, c_void_p]),
    "bpf_object__load": (c_int, [c_void_p]),
    "bpf_object__next_map": (c_void_p, [c_void_p, c_void_p]),
    "bpf_object__next_program": (c_void_p, [c_void_p, c_void_p]),
    "bpf_map__name": (c_char_p, [c_void_p]),
    "bpf_map__fd": (c_int, [c_void_p]),
    "bpf_map__type": (c_int, [c_void_p]),
    "bpf_map__key_size": (c_uint32, [c_void_p]),
    "bpf_map__value_size": (c_uint32, [c_void_p]),
    "bpf_map__reuse_fd": (c_int, [c_void_p, c_int]),
    "bpf_map__set_max_entries": (c_int, [c_void_p, c_uint32]),
    "bpf_map__set_value_size": (c_int, [c_void_p, c_uint32]),
    "bpf_map__set_initial_value": (c_int, [c_void_p, c_void_p, c_size_t]),
    "bpf_program__name": (c_char_p, [c_void_p]),
    "bpf_program__fd": (c_int, [c_void_p]),
    "bpf_program__set_autoload": (c_int, [c_void_p, c_bool]),
    "bpf_program__set_attach_target": (c_int, [c_void_p, c_int, c_char_p]),
    "bpf_program__attach": (c_void_p, [c_void_p]),
    "bpf_link__fd": (c_int, [c_void_p]),
    "bpf_link__destroy": (c_int, [c_void_p]),
    "btf__load_vmlinux_btf": (c_void_p, []),
    "btf__find_by_name_kind": (c_int, [c_void_p, c_char_p, c_uint32]),
    "btf__name_by_offset": (c_char_p, [c_void_p, c_uint32]),
    "btf__type_by_id": (POINTER(c_uint32), [c_void_p, c_uint32]),
}

_BTF_KIND_STRUCT, _BTF_KIND_TYPEDEF, _BTF_KIND_FUNC = 4, 8, 12
_BTF_WITH_MEMBERS = (_BTF_KIND_STRUCT, 5)
PER_CPU_ARRAY = 6  # BPF_MAP_TYPE_PERCPU_ARRAY


class Libbpf:
    """The library. Raises `OSError` if it is missing or a call fails."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(self._lib, name)
            function.restype, function.argtypes = result, arguments

    def call(self, name: str, *arguments: object) -> int:
        """Call a function that returns a number, or -errno."""
        result: int = getattr(self._lib, name)(*arguments)
        if result < 0:
            raise OSError(-result, os.strerror(-result), name)
        return result

    def pointer(self, name: str, *arguments: object) -> int:
        """Call a function that returns a pointer, or NULL and errno."""
        result: int | None = getattr(self._lib, name)(*arguments)
        if not result:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), name)
        return result

    def name(self, kind: str, item: int) -> str:
        """Return the name of a "map" or "program"."""
        name: bytes = getattr(self._lib, f"bpf_{kind}__name")(item)
        return name.decode()

    def each(self, kind: str, opened: int) -> Iterator[int]:
        """Yield each "map" or "program" of an open object."""
        item = None
        while item := getattr(self._lib, f"bpf_object__next_{kind}")(opened, item):
            yield item

    def opened(self, path: Path, data: Mapping[str, ctypes.Structure]) -> tuple[int, dict[str, int]]:
        """Open an object with these initial values of its sections. Return it, and its maps by name."""
        opened = self.pointer("bpf_object__open_file", os.fsencode(path), None)
        maps = {self.name("map", each): each for each in self.each("map", opened)}
        for section, value in data.items():
            of_section = next(each for name, each in maps.items() if name.endswith(section))
            self.call("bpf_map__set_initial_value", of_section, bytes(value), ctypes.sizeof(value))
        return opened, maps

    def tracepoint_arguments(self, tracepoint: str) -> int:
        """Return the number of arguments of a tp_btf program at `tracepoint`, from the BTF of the running kernel.

        The BTF has `typedef void (*btf_trace_NAME)(void *, ...)` for each tracepoint: include/trace/bpf_probe.h.
        """
        pointer = self._type(self._find(f"btf_trace_{tracepoint}", _BTF_KIND_TYPEDEF))[2]
        return self._arguments(self._type(pointer)[2]) - 1

    def function_arguments(self, function: str) -> int | None:
        """Return the number of arguments of a function of the running kernel; None if its BTF does not describe it."""
        try:
            return self._arguments(self._type(self._find(function, _BTF_KIND_FUNC))[2])
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return None

    def has_struct(self, name: str) -> bool:
        """Return whether the BTF of the running kernel has this struct."""
        try:
            return self._find(name, _BTF_KIND_STRUCT) > 0
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return False

    def has_member(self, name: str, member: str) -> bool:
        """Return whether the BTF of the running kernel has this struct with this member."""
        try:
            return member.encode() in self._members(self._find(name, _BTF_KIND_STRUCT))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return False

    def _members(self, struct: int) -> Iterator[bytes]:
        """Yield the names of members, also those of structs and unions without a name: struct btf_member is (name_off, type, offset)."""
        found = self._lib.btf__type_by_id(self._btf, struct)
        if found[1] >> 24 & 0x1F not in _BTF_WITH_MEMBERS:
            return
        for at in range(3, 3 + 3 * (found[1] & 0xFFFF), 3):
            name: bytes = self._lib.btf__name_by_offset(self._btf, found[at])
            if name:
                yield name
            else:
                yield from self._members(found[at + 1])

    @cached_property
    def _btf(self) -> int:
        """The BTF of the running kernel. It is not freed: the process is short-lived."""
        return self.pointer("btf__load_vmlinux_btf")

    def _find(self, name: str, kind: int) -> int:
        return self.call("btf__find_by_name_kind", self._btf, name.encode(), kind)

    def _arguments(self, prototype: int) -> int:
        return self._type(prototype)[1] & 0xFFFF

    def _type(self, number: int) -> list[int]:
        """Return the fields of struct btf_type: name_off, info, size or type."""
        found = self._lib.btf__type_by_id(self._btf, number)
        return [found[0], found[1], found[2]]
