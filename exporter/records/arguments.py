"""What records tell of the arguments of a process: nothing, names only, or all without secrets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from exporter.config.options import Records
from exporter.model.arguments import Arguments, Wanted
from exporter.records.record import Record
from exporter.records.redaction import Redaction

Reduce = Callable[[Arguments], Arguments]
_CACHED = 1024
"""The same commands run again and again. It takes at most about 2 MiB."""


_PROGRAM = re.compile(r"-?([a-z]{1,16})[0-9.]{0,16}")
_FLAG = re.compile(rb"--[A-Za-z0-9][A-Za-z0-9_.-]*|-[A-Za-z0-9?]")


class _Interpreter(NamedTuple):
    code: str
    """Letters of flags whose value is code, or after which there is no script."""
    values: frozenset[bytes] = frozenset()
    """Flags that are followed by a value."""


_SHELL = _Interpreter("cs", frozenset((b"-o", b"-O", b"--rcfile", b"--init-file")))
_PYTHON = _Interpreter("c", frozenset((b"-W", b"-X", b"-Q")))
_NODE = _Interpreter("ep", frozenset((b"-r", b"-C", b"--require", b"--import", b"--loader")))
_INTERPRETERS = {
    **dict.fromkeys(("sh", "ash", "bash", "dash", "ksh", "zsh"), _SHELL),
    **dict.fromkeys(("python", "pypy"), _PYTHON),
    **dict.fromkeys(("node", "nodejs"), _NODE),
    "perl": _Interpreter("eE", frozenset((b"-I", b"-M"))),
    "ruby": _Interpreter("e", frozenset((b"-I", b"-r", b"-C", b"-E"))),
    "php": _Interpreter("rBRE", frozenset((b"-c", b"-d", b"-z", b"-S", b"-t"))),
    "lua": _Interpreter("e", frozenset((b"-l",))),
    "java": _Interpreter("", frozenset((b"-cp", b"-classpath", b"--class-path", b"-p", b"--module-path", b"--add-modules"))),
}
_CODE = (b"--eval", b"--print", b"--run", b"--process-code")


def reducer(options: Records) -> Reduce | None:
    """Return a function that returns what records tell of arguments; None if nothing."""
    wanted = Wanted(options.arguments)
    if wanted is Wanted.OFF:
        return None
    redaction = Redaction(options.redact)
    return lru_cache(_CACHED)(redaction if wanted is Wanted.FULL else lambda arguments: names(redaction(arguments)))


def reduced(batch: Sequence[Record], reduce: Reduce | None) -> Sequence[Record]:
    """Return the records with what may be told of their arguments: without `reduce`, nothing."""
    if all(record.arguments is None for record in batch):
        return batch
    return [_reduced(record, reduce) for record in batch]


def names(arguments: Arguments) -> Arguments:
    """Return the name of the program, the names of flags, and the script of an interpreter: nothing that looks like a value."""
    return arguments.replaced(_names(arguments.words))


def _reduced(record: Record, reduce: Reduce | None) -> Record:
    if record.arguments is None:
        return record
    if reduce is None:
        return record._replace(arguments=None, arguments_cut=None)
    arguments = reduce(Arguments(record.arguments, bool(record.arguments_cut)))
    return record._replace(arguments=arguments.text, arguments_cut=arguments.cut)


def _names(words: Sequence[bytes]) -> Iterator[bytes]:
    yield from words[:1]
    interpreter = _interpreter_of(words)
    is_value = False
    for at, word in enumerate(words[1:], 1):
        if word == b"--":
            if interpreter is not None:
                yield from words[at + 1 : at + 2]
            return
        if is_value:
            is_value = False
        elif word.startswith(b"-") and (flag := _FLAG.match(word)):
            yield flag[0]
            if interpreter is not None:
                is_value = word in interpreter.values
                interpreter = None if _has_code(word, interpreter) else interpreter
        elif interpreter is not None:
            yield word
            interpreter = None


def _interpreter_of(words: Sequence[bytes]) -> _Interpreter | None:
    program = _PROGRAM.fullmatch(words[0].rpartition(b"/")[2].decode(errors="replace"))
    return None if program is None else _INTERPRETERS.get(program[1])


def _has_code(word: bytes, interpreter: _Interpreter) -> bool:
    """Return whether no script follows, but code."""
    if word.startswith(b"--"):
        return word.startswith(_CODE)
    return word not in interpreter.values and any(letter in word.decode(errors="replace") for letter in interpreter.code)
