"""What is refused before anything runs: code and configuration that others can change, and directories that are not a sink's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from exporter import cli
from exporter.config import loading as config
from exporter.config.options import HandlerConfig, JsonlOptions, OtlpOptions, Sinks, SqliteOptions
from exporter.config.problems import ConfigError
from exporter.handlers import loading, plan
from exporter.handlers.plan import Planned
from exporter.handlers.trust import refusal
from exporter.model import Outcome
from tests.unit.handler_child import MODULE, eventually, of, planned, record, running

REPOSITORY = Path(__file__).resolve().parents[2]
ME = (os.geteuid(),)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir(mode=0o755)
    (folder / "some_handlers.py").write_text(MODULE)
    return folder


def wanting(code: Path | None, name: str = "some_handlers:Keep", n: int = 1) -> tuple[HandlerConfig, ...]:
    path = () if code is None else (str(code),)
    return (HandlerConfig(name, path),) * n


def test_nothing_configured_is_nothing_run() -> None:
    """Who wants no handlers pays for no process."""
    assert plan.make((), Sinks()) is None


def test_each_handler_has_a_label_of_its_own(code: Path) -> None:
    """One class may serve two purposes, and a metric with the same labels twice is refused by Prometheus."""
    made = plan.make(wanting(code, n=2), Sinks())
    assert made is not None
    assert [each.label for each in made.handlers] == ["some_handlers:Keep", "some_handlers:Keep#2"]
    assert made.live


def test_code_that_others_can_write_is_refused(code: Path, tmp_path: Path) -> None:
    """It would be theirs to run as us: the file itself, where it lies, and where a link leads."""
    module = code / "some_handlers.py"
    module.chmod(0o664)
    with pytest.raises(
        ConfigError, match=r"^handlers\[0\]: module some_handlers is not trusted: .*some_handlers.py can be written by others"
    ):
        plan.make(wanting(code), Sinks())
    module.chmod(0o644)
    assert plan.make(wanting(code), Sinks())
    code.chmod(0o777)
    with pytest.raises(ConfigError, match=r"code can be written by others \(mode 777\)"):
        plan.make(wanting(code), Sinks())
    code.chmod(0o755)
    (tmp_path / "link").symlink_to(code)
    assert plan.make(wanting(tmp_path / "link"), Sinks())
    code.chmod(0o775)
    with pytest.raises(ConfigError, match="code can be written by others"):
        plan.make(wanting(tmp_path / "link"), Sinks())


def test_a_configuration_that_others_can_write_names_no_code(code: Path, tmp_path: Path) -> None:
    """They could name any module there is."""
    file = tmp_path / "exporter.yml"
    file.write_text("")
    assert plan.make(wanting(code), Sinks(), str(file))
    file.chmod(0o666)
    with pytest.raises(ConfigError, match=r"handlers: refusing to load the handlers named in .*exporter\.yml can be written by others"):
        plan.make(wanting(code), Sinks(), str(file))
    assert plan.make((), Sinks(), str(file)) is None


@pytest.mark.parametrize("name", ["some_handlers:Keep", "tests.unit.handler_child:x"])
def test_the_working_directory_is_not_searched(code: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whoever starts the exporter may stand anywhere."""
    monkeypatch.chdir(code if name.startswith("some") else REPOSITORY)
    with pytest.raises(ConfigError, match=r"handlers\[0\]: there is no module"):
        plan.make(wanting(None, name), Sinks())
    with running(Planned("lost", name)) as consumer:  # the child looks again
        eventually(lambda: of(consumer, "lost").errors == 1)


def test_the_child_looks_at_what_a_handler_imports(tmp_path: Path) -> None:
    """A trusted module may import one beside it that is not."""
    handler = planned(tmp_path, "Imports")
    (tmp_path / "some_handlers.py").write_text("import beside\n" + MODULE.replace("class Keep", "class Imports(Handler): pass\nclass Keep"))
    (tmp_path / "beside.py").write_text("")
    (tmp_path / "beside.py").chmod(0o646)
    with running(handler) as consumer:
        consumer.offer([record()])
        eventually(lambda: of(consumer, "Imports").lost == 1)
    assert of(consumer, "Imports").errors == 1


def test_trust_of_ordinary_paths(tmp_path: Path) -> None:
    """What is on every system must not be refused, and what is not there has to be said."""
    assert refusal(os.path.realpath(sys.executable), ME) is None
    assert refusal("/", ME) is None
    assert "no such file" in str(refusal(str(tmp_path / "missing"), ME))
    (tmp_path / "loop").symlink_to("loop")
    assert refusal(str(tmp_path / "loop"), ME)
    (tmp_path / "up").symlink_to("../..")
    assert refusal(str(tmp_path / "up"), ME) is None
    assert "can be written by others" in str(refusal("/tmp", ME))  # as a place of one's own; on the way it is fine


def test_names_of_several_parts(code: Path) -> None:
    """A package is a module too."""
    (code / "package").mkdir()
    (code / "package/__init__.py").write_text("")
    (code / "package/part.py").write_text(MODULE)
    loading.check("package.part:Keep", [str(code)], ME)
    loading.check("package:Keep", [str(code)], ME)
    with pytest.raises(loading.LoadError):
        loading.check("package.other:Keep", [str(code)], ME)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("handlers: [{}]", "handlers[0].name: missing; this key has no default"),
        ("handlers: [{name: os}]", "handlers[0].name: 'os' is not a name of the form module:name"),
        ("handlers: [{name: 'a:B', nam: 1}]", "handlers[0].nam: unknown key (did you mean name?)"),
        ("handlers: [{name: 'a:B', path: [here]}]", "handlers[0].path[0]: 'here' is not an absolute path"),
        ("handlers: [{name: 'a:B', options: {a-b: 1}}]", "handlers[0].options.a-b: not a valid name of a Python argument"),
        ("handlers: [{name: 'a:B', options: {day: 2026-01-01}}]", "handlers[0].options.day: '2026-01-01' is neither text"),
        ("handlers: [{name: 'a:B', filter: {outcome: [good]}}]", "handlers[0].filter.outcome[0]: 'good' is not one of"),
        ("handlers: {name: 'a:B'}", "handlers: a mapping is not a list"),
        ("sinks: {jsonl: {path: records.jsonl}}", "sinks.jsonl.path: 'records.jsonl' is not an absolute path or empty"),
        ("sinks: {jsonl: {keep: 0}}", "sinks.jsonl.keep: 0 is not an integer from 1"),
        ("sinks: {sqlite: {filter: {uid: [-1]}}}", "sinks.sqlite.filter.uid[0]: -1 is not an integer"),
        ("sinks: {csv: {}}", "sinks.csv: unknown key"),
        ("sinks: {otlp: {endpoint: 'localhost:4318'}}", "sinks.otlp.endpoint: 'localhost:4318' is not an http or https URL"),
        (
            "sinks: {otlp: {endpoint: 'https://me:secret@host/'}}",
            "sinks.otlp.endpoint: 'https://me:secret@host/' is not an http or https URL",
        ),
        ("sinks: {otlp: {compression: zstd}}", "sinks.otlp.compression: 'zstd' is not one of gzip, none"),
        ("sinks: {otlp: {headers_file: token}}", "sinks.otlp.headers_file: 'token' is not an absolute path or empty"),
    ],
)
def test_each_mistake_is_pointed_at(tmp_path: Path, text: str, message: str) -> None:
    """A handler that is silently not run would be noticed when its records are needed."""
    file = tmp_path / "exporter.yml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(str(file))
    assert f"exporter.yml: {message}" in str(caught.value)


def test_the_examples_work() -> None:
    """They are copied."""
    loaded = config.load(str(REPOSITORY / "config/examples/handlers.yml"))
    assert loaded.handlers[0].name == "crash_loop:CrashLoop"
    assert (loaded.sinks.jsonl.keep, loaded.sinks.sqlite.max_age_seconds) == (3, 259200.0)
    handler = Planned(
        "example", "crash_loop:CrashLoop", (str(REPOSITORY / "config/examples/handlers"),), options=loaded.handlers[0].options
    )
    with running(handler) as consumer:
        consumer.offer([record(number, outcome=(Outcome.OK, Outcome.ERROR)[number % 2], comm=b"a\n") for number in range(40)])
    assert (of(consumer, "example").handled, of(consumer, "example").errors) == (20, 0)


def test_the_manual_shows_code_that_runs(tmp_path: Path) -> None:
    """The first thing that anybody tries."""
    slow_builds, compilers = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/handlers.md").read_text(), re.DOTALL)[:2]
    (tmp_path / "slow_builds.py").write_text(slow_builds)
    (tmp_path / "compilers.py").write_text(compilers)
    slow = Planned("slow", "slow_builds:SlowBuilds", (str(tmp_path),), options={"threshold_seconds": 0.001})
    with running(slow, Planned("compilers", "compilers:Compilers", (str(tmp_path),))) as consumer:
        consumer.offer([record()])
        eventually(lambda: [each.series[0][:2] for each in consumer.registries().families] == [(("cc1",), (1.0,))])
    assert [each.handled for each in consumer.status().handlers] == [1, 1]


def test_handlers_find_the_library_that_a_package_contains(tmp_path: Path) -> None:
    """The Debian package has it beside the exporter, whose directory is not searched for anything else."""
    for name in ("prometheus_client", "other"):
        (tmp_path / f"{name}.py").touch()
    guard = loading.ImportGuard((), (), (), str(tmp_path))
    library = guard.find_spec("prometheus_client")
    assert library is not None
    assert library.origin == str(tmp_path / "prometheus_client.py")
    assert guard.find_spec("other") is None
    installed = loading.ImportGuard((), (), (), str(tmp_path / "nothing")).find_spec("prometheus_client")
    assert installed is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="root only: others become nobody else")
def test_a_sink_of_root_is_refused(tmp_path: Path) -> None:
    """The child must not stay root, and could not rotate files in a directory of root's as anybody else."""
    with pytest.raises(ConfigError, match=r"^sinks.jsonl.path: .* belongs to root"):
        plan.make((), Sinks(jsonl=JsonlOptions(path=str(tmp_path / "a"))))
    with pytest.raises(ConfigError, match=r"^sinks.sqlite.path: cannot use the directory /no/such: no such file"):
        plan.make((), Sinks(sqlite=SqliteOptions(path="/no/such/file")))


OTLP = OtlpOptions(endpoint="https://[::1]:4318/otlp/v1/logs")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is optional; whoever configures the sink is told what to install, before anything starts."""
    (file := tmp_path / "exporter.yml").write_text("sinks: {otlp: {endpoint: 'http://localhost:4318'}}")
    for spec in (None, ModuleNotFoundError("No module named 'opentelemetry'")):

        def find(_: str, spec: ModuleNotFoundError | None = spec) -> None:
            if spec is not None:
                raise spec

        monkeypatch.setattr("importlib.util.find_spec", find)
        for command in ("check-config", "doctor"):
            assert cli.main([command, f"--config.file={file}"]) == 2
            refusal = f"sinks.otlp: the OpenTelemetry SDK is not installed for {sys.executable}: pip install '{plan._SDK}'"
            assert refusal in capsys.readouterr().err
    assert plan._SDK in (REPOSITORY / "pyproject.toml").read_text()
    assert plan._SDK in (REPOSITORY / "docs/handlers.md").read_text()


def test_looking_for_the_library_does_not_import_it() -> None:
    """The serving process looks, and would keep 20 MiB."""
    code = (
        "import sys; from exporter.config.options import OtlpOptions, Sinks; from exporter.handlers import plan\n"
        "assert plan.make((), Sinks(otlp=OtlpOptions(endpoint='http://localhost')))\n"
        "print(*(name for name in ('google.protobuf', 'opentelemetry.sdk', 'requests') if name in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="root only: others become nobody else")
def test_the_owner_of_a_secret_runs_the_sinks(tmp_path: Path) -> None:
    """A token must be readable for the child alone: it has a user of its own, and without a token it is nobody."""
    alone = plan.make((), Sinks(otlp=OTLP))
    assert alone is not None
    assert (alone.user, alone.group) == (plan.NOBODY, plan.NOBODY)
    (file := tmp_path / "headers").write_text("A: b")
    sinks = Sinks(otlp=replace(OTLP, headers_file=str(file)))
    with pytest.raises(ConfigError, match=r"^sinks.otlp.headers_file: .*headers belongs to root, and sinks do not run as root"):
        plan.make((), sinks)
    os.chown(file, 54321, 54321)
    file.chmod(0o604)
    with pytest.raises(ConfigError, match=r"^sinks.otlp.headers_file: refusing to use it: others can read it \(mode 604\)"):
        plan.make((), sinks)
    file.chmod(0o600)
    made = plan.make((), sinks)
    assert made is not None
    assert (made.user, made.group) == (54321, 54321)
    with pytest.raises(ConfigError, match=r"^sinks.otlp.headers_file: cannot use the file /no/such: no such file"):
        plan.make((), Sinks(otlp=replace(OTLP, headers_file="/no/such")))


def test_the_interface_costs_little_to_import() -> None:
    """Handlers import it, and so does the exporter where none is configured."""
    code = "import sys, exporter.handlers; print(*(name for name in ('sqlite3', 'ctypes', 'subprocess') if name in sys.modules))"
    result = subprocess.run([sys.executable, "-S", "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
