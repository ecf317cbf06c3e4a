"""What is in a configuration file: YAML or not, all of its problems at once, aliases, bounds."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.config import loading
from exporter.config.options import Filter
from exporter.config.problems import ConfigError, shown
from tests.unit.config_files import KEYS, Load, loader, refusal


@pytest.fixture
def load(tmp_path: Path) -> Load:
    return loader(tmp_path)


def nested(key: str, value: str) -> str:
    *sections, last = key.split(".")
    return "".join(f"{'  ' * depth}{name}:\n" for depth, name in enumerate(sections)) + f"{'  ' * len(sections)}{last}: {value}\n"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("log: {level: info", "line 1"),
        ("log:\n  level: [", "line 2"),
        ("log:\n\tlevel: info", "line 2"),
        ("a: b: c", "line 1"),
        ("log: {level: \0}", "character"),
        (b"log: {}\nweb: \xff", "line 2: not UTF-8"),
        ("log:\n\tlevel: info", "line 2, column 1: a tab cannot indent: use spaces"),
        (
            "log:\n  level: info\n   format: json",
            "line 3, column 10: unexpected colon: check the line above and the indentation, or put the value in quotes",
        ),
        ("log:\n  level: info\n format: json", "line 3, column 2: the indentation does not fit the lines above"),
        ("log:\n  level\n  format: json", "line 3, column 9: unexpected colon: check the line above and the indentation"),
        ("log:\n  'level': 'info' x", "line 2, column 19: unexpected text after a value: put the whole value in quotes"),
        ("handlers: [{name: @x}]", "line 1, column 19: text that begins with this character needs quotes"),
        ("sinks: {jsonl: {filter: {comm: [*]}}}", "line 1, column 34: text that begins with * or & needs quotes"),
        (
            "sinks: {jsonl: {filter: {comm: [*make]}}}",
            "column 33: no &NAME further up defines this alias; text that begins with * needs quotes",
        ),
        ("log: {level: 'info}", "line 1, column 20: a quote is not closed"),
        ("a: &x 1\nb: &x 2", "line 2, column 4: an anchor of this name is defined further up: take another name"),
        ("a: &x [*x]", "line 1, column 4: an alias cannot refer to what contains it"),
        ("a: &x {b: {<<: *x}}", "line 1, column 4: an alias cannot refer to what contains it"),
        ("log: {<<: [{level: info}]}", "log.<<: merges one mapping: write <<: *NAME"),
        ("a: &x {b: 1}\nlog: {<<: *x, <<: *x}", "log.<<: duplicate key, again on line 2"),
        ("log: {level: info, <<: {level: warn, level: error}}", "log.<<.level: duplicate key, again on line 1"),
        ("".join(f"a{n}: &a{n} [*a{n - 1}]\n" if n else "a0: &a0 []\n" for n in range(30)), "nested more than 20 deep by aliases"),
        (
            "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" if n else "a0: &a0 x\n" for n in range(15)),
            "aliases repeat more than 10000 values",
        ),
        ("log: {}\n---\nweb: {}", "document"),
        ("? [a]\n: 1", "a key has to be a word"),
        ("a: " + "[" * 100_000, "nested more than 20 deep"),
        ("- " * 100_000, "nested more than 20 deep"),
        ("log: {level: " + "9" * 100_000 + "}", "longer than 1000 characters"),
        ("log: {level: " + "1:" * 100_000 + "1}", "longer than 1000 characters"),
        ("log: {level: !!python/name:os.system x}", "log.level: 'x' cannot be read as python/name:os.system"),
        ("log: {level: !!timestamp x}", "log.level: 'x' cannot be read as timestamp"),
        ("log: {level: !!bool x}", "log.level: 'x' cannot be read as bool"),
        ("log: {level: !!int ''}", "log.level: '' cannot be read as int"),
        ("log: {level: 2026-99-99}", "log.level: '2026-99-99' cannot be read as timestamp"),
        ("#" * (1 << 20) + "\n", "larger than 1 MiB"),
        ('"a\\nb\\ud800\\e": 1', "a\\nb\\ud800\\x1b: unknown key"),
    ],
)
def test_bad_file(load: Load, text: str | bytes, part: str) -> None:
    """Whatever a file holds, the answer is one line and no traceback."""
    assert part in refusal(load, text)


def test_unreadable_files(tmp_path: Path) -> None:
    """A wrong path has to be told from a wrong content."""
    for path in (tmp_path / "missing", tmp_path, "a\0b", tmp_path / ("x" * 300)):
        with pytest.raises(ConfigError, match="cannot be read: ") as caught:
            loading.load(str(path))
        assert str(caught.value).isprintable()


def test_file_with_a_byte_order_mark(load: Load) -> None:
    """Some editors write one."""
    assert load(b"\xef\xbb\xbflog: {level: debug}").log.level == "debug"


def test_all_problems_of_a_file_are_told_at_once(load: Load) -> None:
    """Who mends one and starts again, to be told the next, does so many times."""
    with pytest.raises(ConfigError) as caught:
        load("mod: 1\nlog: {level: loud, level: info, format: !x y}\nsinks: {jsonl: {keep: 0, filter: {uid: [-1, 0, -2]}}}\nhandlers: [{}]")
    told = [line.partition("exporter.yml: ")[2] for line in caught.value.lines]
    assert [line.partition(": ")[0] for line in told] == [
        "log.level",
        "log.format",
        "mod",
        "sinks.jsonl.keep",
        "sinks.jsonl.filter.uid[0]",
        "sinks.jsonl.filter.uid[2]",
        "handlers[0].name",
    ]
    assert told[0] == "log.level: duplicate key, again on line 2"
    assert told[1] == "log.format: 'y' cannot be read as !x"


def test_the_manual_shows_what_happens(tmp_path: Path) -> None:
    """Its example is copied, and its messages are searched for."""
    manual = (Path(__file__).resolve().parents[2] / "docs/configuration.md").read_text()
    file = tmp_path / "exporter.yml"
    file.write_text(manual.partition("```yaml\n")[2].partition("```")[0])
    assert loading.load(str(file)).handlers[0].filter == Filter(comm=("make", "cc1"), outcome=("error",), min_runtime_seconds=0.005)
    file.write_text("metrics: {max_comm: 3}\nmode: scan\ndetection: {scan: {interval_seconds: 11}}\n")
    with pytest.raises(ConfigError) as caught:
        loading.load(str(file))
    assert re.findall("    shortproc-exporter: error: (exporter.yml: .*)", manual) == [
        line.removeprefix(f"{tmp_path}/") for line in caught.value.lines
    ]


def test_only_some_of_many_problems_are_told(load: Load) -> None:
    """A file of another program must not fill the screen, nor a line of the log."""
    with pytest.raises(ConfigError) as caught:
        load("".join(f"key{n}: 1\n" for n in range(5000)))
    assert len(caught.value.lines) == 11
    assert caught.value.lines[-1] == "and 4990 more"
    assert str(caught.value).isprintable()


def test_aliases_stand_for_what_they_name(load: Load) -> None:
    """Filters that are the same are written once; what is merged gives way to what stands beside it."""
    loaded = load(
        "sinks:\n"
        "  jsonl: {filter: &builds {comm: [make], outcome: [error]}}\n"
        "  sqlite: {filter: *builds}\n"
        "handlers:\n"
        "  - {name: 'a:B', filter: *builds}\n"
        "  - {name: 'a:B', filter: {outcome: [signal], <<: *builds, uid: [0]}}\n"
    )
    assert (
        loaded.sinks.sqlite.filter == loaded.sinks.jsonl.filter == loaded.handlers[0].filter == Filter(comm=("make",), outcome=("error",))
    )
    assert loaded.handlers[1].filter == Filter(comm=("make",), outcome=("signal",), uid=(0,))


def test_an_error_behind_an_alias_is_told_where_it_is_used(load: Load) -> None:
    """The same value may be right in one place and wrong in another."""
    message = refusal(load, "detection: {fast_scan: {interval_seconds: &t 1}, scan: {interval_seconds: *t}, retry_seconds: &r 0.5}")
    assert message == "detection.retry_seconds: 0.5 is not a duration from 1s to 1d"


TEXTS = st.one_of(
    st.text(max_size=200),
    st.lists(
        st.sampled_from(
            [
                *"&*!<[]{},:-?|>'\"#%@`~ \n\t",
                "&a",
                "*a",
                "&b",
                "*b",
                "<<:",
                "- ",
                ": ",
                "\n  ",
                "1",
                "x",
                "detection",
                "filter",
                "mode",
                "!!map",
                "!!set",
                "---",
                "...",
            ]
        ),
        max_size=60,
    ).map("".join),
)


@given(text=TEXTS)
@settings(max_examples=1000, deadline=None)
def test_any_text_is_taken_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Whatever is in the file, it ends in lines for a person, never in a traceback."""
    path = tmp_path_factory.getbasetemp() / f"text-{os.getpid()}.yml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        loading.load(str(path))
    except ConfigError as error:
        told = error.lines
    else:
        told = ["nothing"]
    assert 1 <= len(told) <= 11
    assert all(line.isprintable() for line in told)


SCALARS = st.one_of(
    st.text(max_size=40),
    st.integers().map(str),
    st.floats().map(repr),
    st.sampled_from(
        ["~", "yes", "2026-01-01", "0x1f", "1_000", "1:30", "!!float 1", "!!int a", "!!binary eA==", "!x y", "1e400", "{}", "[]", "|\n x"]
    ),
    st.text().map(json.dumps),
)


@given(key=st.sampled_from(KEYS), scalar=SCALARS)
@settings(max_examples=400, deadline=None)
def test_any_scalar_is_taken_or_refused_with_its_key(tmp_path_factory: pytest.TempPathFactory, key: str, scalar: str) -> None:
    """No value may get past the checks as an exception that nobody catches."""
    path = tmp_path_factory.getbasetemp() / f"any-{os.getpid()}.yml"
    path.write_bytes(nested(key, scalar).encode("utf-8", "surrogatepass"))
    try:
        loading.load(str(path))
    except ConfigError as error:
        message = str(error)
        assert message.isprintable()
        # Text that is not YAML at all has a line instead.
        assert key in message or re.search(r"yml: (line \d+|unacceptable character|\S+: unknown key|\S+: duplicate key)", message)


def test_shown_is_short() -> None:
    """A value of 1 MiB must not fill the screen."""
    assert len(shown("x" * 100_000)) < 80
    assert len(shown(10**900)) < 80
