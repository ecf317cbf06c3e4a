"""Just enough of ELF and BTF to know how the compiler laid out a struct (Documentation/bpf/btf.rst)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT = range(1, 12)
_FUNC_PROTO, _VAR, _DATASEC, _DECL_TAG, _ENUM64 = 13, 14, 15, 17, 19
_ALIASES = {_TYPEDEF, _VOLATILE, _CONST, _RESTRICT}
_TAIL = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}
_EACH = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, _DATASEC: 12, _ENUM64: 12}


@dataclass(frozen=True, slots=True)
class Type:
    kind: int
    name: str
    size_or_type: int
    entries: list[tuple[int, ...]]
    """Words that follow: of each member or so, or of the type itself."""


@dataclass(frozen=True, slots=True)
class Member:
    name: str
    offset: int
    size: int
    length: int | None
    """Of an array."""


class Btf:
    """The types of an object file."""

    def __init__(self, path: Path) -> None:
        data = _section(path.read_bytes(), b".BTF")
        magic, _, _, header, types_at, types_size, names_at, names_size = struct.unpack_from("=HBBIIIII", data)
        assert magic == 0xEB9F
        self._names = data[header + names_at : header + names_at + names_size]
        self._types = [Type(0, "", 0, [])]
        at, end = header + types_at, header + types_at + types_size
        while at < end:
            name, info, size_or_type = struct.unpack_from("=III", data, at)
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            at += 12
            size, n = (_EACH[kind], count) if kind in _EACH else (_TAIL.get(kind, 0), 1)
            entries = [struct.unpack_from(f"={size // 4}I", data, at + number * size) for number in range(n)]
            at += size * n
            self._types.append(Type(kind, self._name(name), size_or_type, entries))

    def struct_size(self, name: str) -> int:
        return self._named(_STRUCT, name).size_or_type

    def members(self, name: str) -> list[Member]:
        """The members of a struct, in order."""
        return [
            Member(self._name(each), (offset & 0xFFFFFF) // 8, self._size(kind), self._length(kind))
            for each, kind, offset in self._named(_STRUCT, name).entries
        ]

    def map_entries(self, name: str) -> int:
        """`max_entries` of a struct that declares a map: libbpf keeps a number as a pointer to an array as long."""
        pointer = next(kind for each, kind, _ in self._named(_STRUCT, name).entries if self._name(each) == "max_entries")
        length = self._length(self._types[pointer].size_or_type)
        assert length is not None
        return length

    def _named(self, kind: int, name: str) -> Type:
        return next(each for each in self._types if each.kind == kind and each.name == name)

    def _name(self, at: int) -> str:
        return self._names[at : self._names.index(b"\0", at)].decode()

    def _real(self, number: int) -> Type:
        each = self._types[number]
        return self._real(each.size_or_type) if each.kind in _ALIASES else each

    def _size(self, number: int) -> int:
        each = self._real(number)
        if each.kind == _PTR:
            return 8
        if each.kind == _ARRAY:
            of, _, length = each.entries[0]
            return self._size(of) * length
        return each.size_or_type

    def _length(self, number: int) -> int | None:
        each = self._real(number)
        return each.entries[0][2] if each.kind == _ARRAY else None


def _section(elf: bytes, name: bytes) -> bytes:
    """A section of a 64-bit ELF file of this machine's byte order."""
    assert elf[:5] == b"\x7fELF\x02"
    table, size, count, names = (*struct.unpack_from("=Q", elf, 0x28), *struct.unpack_from("=HHH", elf, 0x3A))
    sections = [struct.unpack_from("=IIQQQQ", elf, table + number * size) for number in range(count)]
    names_at = sections[names][4]
    for each in sections:
        start = names_at + each[0]
        if elf[start : elf.index(b"\0", start)] == name:
            return elf[each[4] : each[4] + each[5]]
    raise AssertionError(f"no section {name.decode()}")
