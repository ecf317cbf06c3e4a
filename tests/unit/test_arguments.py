"""Arguments in records: only if asked for, as names only if so wanted, and harmless wherever they are shown."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter import cli
from exporter.config.options import Records
from exporter.model.arguments import MOST_BYTES, Arguments, first
from exporter.records import encoding
from exporter.records.arguments import names, reducer
from exporter.records.hub import Hub
from exporter.records.record import Record
from exporter.records.shown import command_line
from exporter.snoop import lines
from exporter.snoop.flags import ARGS
from tests.unit.handler_child import record

WITH = record(1, arguments=b"deploy\0--token\0abc\0--to=prod\0now", arguments_cut=False)

words = st.lists(st.binary(max_size=20).map(lambda word: word.replace(b"\0", b"")), min_size=1, max_size=6)


def joined(*parts: bytes) -> Arguments:
    return Arguments(b"\0".join(parts), cut=False)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ls -la --color=auto /tmp", "ls -l --color"),
        ("mysql -psecret --host=db shop", "mysql -p --host"),
        ("tool -- -x value", "tool"),
        ("python3.11 -W ignore job.py --for=me -v you", "python3.11 -W job.py --for -v"),
        ("/usr/bin/python -m http.server 80", "/usr/bin/python -m http.server"),
        ("python -c code", "python -c"),
        ("/bin/sh ./run.sh value", "/bin/sh ./run.sh"),
        ("sh -c code", "sh -c"),
        ("bash -lc code value", "bash -l"),
        ("bash -s value", "bash -s"),
        ("-bash", "-bash"),
        ("perl -ne code file", "perl -n"),
        ("node --eval code", "node --eval"),
        ("node app.js value", "node app.js"),
        ("java -jar app.jar value", "java -j app.jar"),
        ("java -cp a:b com.Main value", "java -c com.Main"),
        ("sh -- run.sh value", "sh run.sh"),
        ("ssh host value", "ssh"),
    ],
)
def test_names(line: str, expected: str) -> None:
    """What runs, and how, without what anybody put in."""
    assert names(joined(*line.encode().split())) == joined(*expected.encode().split())


@given(words)
def test_names_never_tell_a_value(parts: list[bytes]) -> None:
    """Of a program that is no interpreter: its name, and the beginnings of flags."""
    told = names(joined(b"/bin/tool", *parts)).words
    assert told[0] == b"/bin/tool"
    assert all(b"=" not in word and any(each.startswith(word) and word.startswith(b"-") for each in parts) for word in told[1:])


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        (b"a\0b\0", 4, (b"a\0b", False)),
        (b"a\0\0", 3, (b"a\0", False)),
        (b"\0", 1, (b"", False)),
        (b"title of a process", 18, (b"title of a process", False)),
        (b"x" * MOST_BYTES, MOST_BYTES + 1, (b"x" * MOST_BYTES, True)),
        (b"x" * (MOST_BYTES - 1) + b"\0", 100_000, (b"x" * (MOST_BYTES - 1), True)),
        (b"", 0, None),
    ],
)
def test_what_the_kernel_has(text: bytes, size: int, expected: tuple[bytes, bool] | None) -> None:
    """The zero after the last one is no argument; a process without any tells nothing."""
    assert first(text, size) == expected


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (Records(), None),
        (Records(arguments="names"), b"deploy\0--token\0--to"),
        (Records(arguments="full"), b"deploy\0--token\0REDACTED\0--to=prod\0now"),
        (Records(arguments="full", redact=("to",)), b"deploy\0--token\0REDACTED\0--to=REDACTED\0now"),
    ],
)
def test_no_consumer_gets_more_than_was_asked_for(options: Records, told: bytes | None) -> None:
    """Whatever a source publishes, the hub is the gate."""
    hub = Hub(10, reducer(options))
    hub.publish([WITH, record(2)])
    assert [(each.arguments, each.arguments_cut) for each in hub.recent()] == [(told, None if told is None else False), (None, None)]


def test_without_instructions_the_hub_tells_nothing() -> None:
    """Code that forgets them must not leak."""
    hub = Hub(10)
    hub.publish([WITH])
    assert hub.recent()[0].arguments is None


@given(words, st.booleans())
def test_json_has_a_list(parts: list[bytes], cut: bool) -> None:
    """Programs need no parser for it, and it comes back as it was."""
    given_ = record(1, arguments=b"\0".join(parts), arguments_cut=cut)
    shown = json.loads(encoding.line(given_))
    assert len(shown["arguments"]) == len(parts)
    assert all(text.isprintable() for text in shown["arguments"])
    assert encoding.read(shown) == given_


@given(words, st.booleans())
def test_a_terminal_gets_no_command(parts: list[bytes], cut: bool) -> None:
    """No argument clears the screen, begins a line or turns the direction of text."""
    assert command_line(b"\0".join(parts), cut).isprintable()


def test_a_shell_takes_the_line_as_it_was() -> None:
    """So it is not ambiguous, and can be tried again."""
    parts = [
        b"printf",
        b"%s\\0",
        b"",
        b"two words",
        b"it's",
        b"a\nb\x1b[2J'\\",
        b"\xff\xfe",
        "ü\u202e€😀".encode(),
        b'$HOME `x` "q" *',
        b"~",
        b">",
    ]
    line = command_line(b"\0".join(parts), cut=False)
    output = subprocess.run(["bash", "-c", line], check=True, capture_output=True, env={"LC_ALL": "C.UTF-8"}).stdout
    assert output.split(b"\0")[:-1] == parts[2:]


def test_a_cut_line_says_so() -> None:
    """By the same mark as a line that is wider than the terminal; an argument that looks like it has quotes."""
    assert command_line(b"sh\0-c\0aaa", cut=True) == "sh -c aaa>"
    assert command_line(b"sh\0>", cut=False) == "sh '>'"
    assert command_line(None, cut=None) == "-"


def test_snoop_shows_them_in_the_last_column_if_asked() -> None:
    """And never without the flag."""
    header, line = lines.of_records(ARGS)
    assert header.startswith(lines.HEADER)
    assert header.endswith("ARGS")
    assert line(WITH).endswith("deploy --token abc --to=prod now")
    assert line(WITH).index("deploy --token") == header.index("ARGS")
    assert "deploy" not in lines.line(WITH)


def check_config(folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    file = folder / "exporter.yml"
    file.write_text(text)
    status = cli.main(["check-config", str(file)])
    return status, capsys.readouterr().err.replace(str(file), "FILE")


@pytest.mark.parametrize("value", ["off", '"off"', "names", "full"])
def test_values(value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """YAML reads a plain `off` as false, and nobody should need to know."""
    assert check_config(tmp_path, f"records: {{arguments: {value}, redact: ['*pin']}}\n", capsys)[0] == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("records: {arguments: all}", "records.arguments: 'all' is not one of off, names, full"),
        ("records: {arguments: true}", "records.arguments: true is not one of off, names, full"),
        ("records: {redact: '*pin'}", "records.redact: '*pin' is not a list: write [\"*pin\"]"),
        ("records: {redact: ['']}", "records.redact[0]: '' is not a glob of 1 to 256 characters, such as make or python*"),
        (
            "records: {arguments: names}\nweb: {public_records: true}",
            "records.arguments: every client would see them, because web.public_records is true; set one of the two to its default",
        ),
    ],
)
def test_bad_values(text: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says what is wrong and what to do."""
    status, said = check_config(tmp_path, f"{text}\n", capsys)
    assert status == 2
    assert said == f"shortproc-exporter: error: FILE: {problem}\n"


def test_records_of_older_exporters() -> None:
    """They do not send them."""
    sent = encoding.as_json(WITH)
    del sent["arguments"], sent["arguments_cut"]
    read: Record = encoding.read(sent)
    assert (read.arguments, read.arguments_cut) == (None, None)
