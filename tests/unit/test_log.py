from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.process import log

logger = logging.getLogger("tests.log")


@pytest.fixture(autouse=True)
def root_restored() -> Iterator[None]:
    root, raises = logging.getLogger(), logging.raiseExceptions
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raises


def written(level: int, message: str, form: str = "logfmt", /, **fields: object) -> str:
    stream = io.StringIO()
    log.setup("debug", form, stream)
    logger.log(level, message, extra=log.fields(**fields))
    return stream.getvalue()


def test_logfmt_line() -> None:
    """The form is what people's log pipelines parse."""
    line = written(logging.INFO, "mode changed", to_mode="scan", seconds=0.5, ok=True, why=None, comm=b"a\xffb", text="a b")
    pattern = r'ts=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=info msg="mode changed" to_mode=scan seconds=0\.5 ok=true why=null '
    assert re.fullmatch(pattern + r'comm="a\\\\xffb" text="a b"\n', line)


def test_json_line() -> None:
    """The same line, for pipelines that read JSON."""
    record = json.loads(written(logging.INFO, "mode changed", "json", to_mode="scan", seconds=0.5, why=None, comm=b"a\xff", other={1}))
    del record["ts"]
    expected = {"level": "info", "msg": "mode changed", "to_mode": "scan", "seconds": 0.5, "why": None, "comm": "a\\xff", "other": "{1}"}
    assert record == expected


@pytest.mark.parametrize(("level", "name"), [(logging.DEBUG, "debug"), (logging.WARNING, "warn"), (logging.ERROR, "error"), (50, "error")])
def test_level_names(level: int, name: str) -> None:
    """They are those of the configuration."""
    assert f" level={name} " in written(level, "x")


def test_level_is_kept_to() -> None:
    """Who asks for warnings wants nothing less severe."""
    stream = io.StringIO()
    log.setup("warn", "logfmt", stream)
    logger.info("no")
    logger.warning("yes")
    assert stream.getvalue().count("\n") == 1


def test_fields_cannot_replace_what_every_line_has() -> None:
    """A field named level must not make an error look harmless."""
    assert " level=error " in written(logging.ERROR, "x", level="debug")


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_exception_stays_on_one_line(form: str) -> None:
    """A traceback of many lines falls apart in a log pipeline."""
    stream = io.StringIO()
    log.setup("info", form, stream)
    try:
        int("a\nlevel=error")
    except ValueError:
        logger.exception("failed")
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert "ValueError: invalid literal" in line
    assert "Traceback" in line


@pytest.mark.parametrize("form", ["logfmt", "json"])
@given(comm=st.one_of(st.text(), st.binary()), key=st.text())
def test_nothing_forges_a_line(form: str, comm: str | bytes, key: str) -> None:
    """A comm is chosen by whoever runs the process."""
    line = written(logging.INFO, "seen", form, **{f"k{key}": comm})
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    line.encode()  # no lone surrogate is left
    if form == "logfmt":
        assert re.fullmatch(r'ts=\S+ level=info msg=seen [\w.-]+=("([^"\\]|\\.)*"|[^\s"=]+)\n', line)


def test_unwritable_log_is_no_reason_to_fail() -> None:
    """Standard error may be a pipe that somebody closed."""
    stream = io.StringIO()
    log.setup("info", "logfmt", stream)
    stream.close()
    logger.info("into the void")
