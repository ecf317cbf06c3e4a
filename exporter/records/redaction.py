"""Finds secrets in the arguments of a process, in their usual forms, and replaces them.

It rather replaces too much than too little. Attackers choose arguments, and `re` blocks all other threads. So no pattern here has a
repetition within another, or two without a limit: 512 bytes are searched in less than a millisecond, whatever they are. What users can
configure are globs, which take linear time by construction, not regular expressions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from exporter.config.globs import matcher
from exporter.model.arguments import Arguments

REDACTED = "REDACTED"
Span = tuple[int, int]

_NAMES = (
    r"(?:passw(?:or)?d|passphrase|passcode|secret|token|credential|api[-_.]?key|access[-_.]?key|private[-_.]?key|authorization|cookie"
    r"|(?<![a-z])(?:pass|pwd|pw|key|auth)(?![a-z]))"  # in a longer word they mean something else
)
_NAME = re.compile(rf"{_NAMES}[\w.-]{{0,32}}[\"']?(?P<separator>\s?[=:]|\s|\Z)", re.IGNORECASE)
"""The name of a secret, and what is between it and the secret, in the same argument or in the next one."""
_SHAPE = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:AKIA|ASIA)[0-9A-Z]{8,}"  # AWS
    r"|gh[oprsu]_\w+|github_pat_\w+|gl(?:pat|agent|cbt|dt|ft|imt|oas|ptt|rt|soat)-[\w-]+"  # GitHub, GitLab
    r"|xox[a-z]-[\w-]+|xapp-[\w-]+"  # Slack
    r"|AIza[\w-]{16,}|[rs]k_(?:live|test)_\w+|sk-[\w-]{16,}|hvs\.[\w-]+|npm_\w{16,}|pypi-[\w-]{16,}|hf_\w{16,}"
    r"|eyJ[\w.-]{8,}"  # JSON web tokens
    r"|-----BEGIN[^-]{1,40}PRIVATE KEY(?s:.*))"
)
"""Secrets that tell by their form that they are one."""
_WORD = re.compile(r"[^\s'\";|&()]+")
_AUTHORITY_ENDS = re.compile(r"[/?#]")
_WITH_PORT = re.compile(r"[^:]*(?::[0-9]{0,5})?|\[[0-9a-fA-F:.]*\](?::[0-9]{0,5})?")
_FLAGS = {
    "-a": "redis-cli",
    "-c": "snmpget snmpset snmpwalk snmpbulkwalk",
    "-p": "mysql mysqladmin mysqlcheck mysqldump mysqlimport mysqlshow mariadb mariadb-admin mariadb-dump mongo mongodump mongorestore "
    "mongosh sshpass docker podman 7z 7za 7zr",
    "-u": "curl",
    "-w": "ldapadd ldapdelete ldapmodify ldappasswd ldapsearch ldapwhoami",
    "-P": "ipmitool sqlcmd unzip zip",
    "-U": "smbclient rpcclient",
}
_FLAG_OF = {program: flag for flag, programs in _FLAGS.items() for program in programs.split()}
"""Flags that are followed by a secret, by the program that they belong to."""
_SUSPICIOUS = re.compile(rf"{_NAMES}|{_SHAPE.pattern}|://|(?:{'|'.join(_FLAG_OF)})", re.IGNORECASE)
"""Most arguments have nothing of all this, and need no closer look."""


class Redaction:
    """Replaces secrets, and what matches the globs of the configuration."""

    def __init__(self, globs: Sequence[str] = ()) -> None:
        """A glob matches the name of a flag, of a variable or of a header, whose value is then replaced; or it matches a whole word."""
        self._globs = bool(globs)
        self._matches: Callable[[str], bool] = matcher([each.lower() for each in globs]) if globs else lambda _: False

    def __call__(self, arguments: Arguments) -> Arguments:
        """Return the arguments without secrets."""
        texts = arguments.text.decode("utf-8", "surrogateescape").split("\0")
        if not self._globs and not any(map(_SUSPICIOUS.search, texts)):
            return arguments
        found: list[list[Span]] = [[] for _ in texts]
        for at, text in enumerate(texts):
            cut = arguments.cut and at == len(texts) - 1
            shaped = (match.span() for match in _SHAPE.finditer(text))
            found[at] += (*_named(text), *shaped, *_of_urls(text, cut=cut), *self._of_globs(text))
        for (at, text), (_, after) in pairwise(enumerate(texts)):
            if self._announces(text, is_program=at == 0):
                found[at + 1].append((0, len(after)))
        for at, span in _of_flags(texts):
            found[at].append(span)
        words = (_replaced(text, spans) for text, spans in zip(texts, found, strict=True))
        return arguments.replaced(word.encode("utf-8", "surrogateescape") for word in words)

    def _of_globs(self, text: str) -> Iterator[Span]:
        if not self._globs:
            return
        for match in _WORD.finditer(text):
            name, separator, value = _parted(match[0])
            if separator and self._is_name(name):
                yield match.end() - len(value), len(text)
            elif self._matches(match[0].lower()) and not (match[0].startswith("-") and not separator):
                yield match.span()
            elif separator and self._matches(value.lower()):
                yield match.end() - len(value), match.end()

    def _is_name(self, name: str) -> bool:
        """Return whether a glob matches the name of a flag, with or without its dashes, of a variable or of a header."""
        return self._matches(name.lower()) or self._matches(name.lstrip("-").lower())

    def _announces(self, text: str, *, is_program: bool) -> bool:
        """Return whether an argument is a name whose value is the next argument."""
        if is_program:
            return False
        if text.startswith("-") and self._is_name(text):
            return True
        return (text.startswith("-") or "_" in text) and any(not match["separator"] for match in _NAME.finditer(text))


def _parted(word: str) -> tuple[str, str, str]:
    """Return name, separator and value of `name=value` or `name:value`."""
    return min(word.partition("="), word.partition(":"), key=lambda parts: len(parts[0]))


def _named(text: str) -> Iterator[Span]:
    """Yield all after the name of a secret: where it ends, only the program knows."""
    for match in _NAME.finditer(text):
        if match["separator"]:
            yield match.end(), len(text)
            return


def _of_urls(text: str, *, cut: bool) -> Iterator[Span]:
    """Yield user and password of each URL. `cut`: the end of the text is missing."""
    for match in _WORD.finditer(text):
        scheme, slashes, rest = match[0].partition("://")
        if not slashes:
            continue
        begin = match.start() + len(scheme) + len(slashes)
        ends = _AUTHORITY_ENDS.search(rest)
        authority = rest[: ends.start()] if ends else rest
        user, at, _ = authority.rpartition("@")
        if at:
            yield begin, begin + len(user)
        elif not _WITH_PORT.fullmatch(authority) or (cut and match.end() == len(text) and ends is None and ":" in authority):
            at_last = rest.rfind("@")  # a password with a slash
            yield begin, begin + (at_last if at_last >= 0 else len(rest))


def _of_flags(texts: Sequence[str]) -> Iterator[tuple[int, Span]]:
    """Yield the number of an argument, and a span of it, for flags such as `-p` of mysql, also behind `sudo` and in scripts of `sh -c`."""
    flag, due = "", False
    for at, text in enumerate(texts):
        for match in _WORD.finditer(text):
            word = match[0]
            if due:
                yield at, match.span()
            due = bool(flag) and word == flag
            if flag and word.startswith(flag) and not due:
                yield at, (match.start() + len(flag), match.end())
            flag = _FLAG_OF.get(word.rpartition("/")[2], flag)


def _replaced(text: str, spans: Sequence[Span]) -> str:
    """Return the text with `REDACTED` instead of each span, and of spans that overlap."""
    pieces, done = [], 0
    for begin, end in sorted(spans):
        if end <= done or begin == end:
            continue
        if begin >= done:
            pieces += [text[done:begin], REDACTED]
        done = end
    return "".join([*pieces, text[done:]])
