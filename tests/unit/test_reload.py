"""SIGHUP: what takes effect, what waits, and what is refused."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from exporter.config.loading import after_reload
from exporter.config.options import Config, Detection, Log, Metrics, Scan
from exporter.config.problems import ConfigError
from exporter.model import ModeUnavailable
from exporter.supervision.reload import Reloader


class Told:
    """A supervisor's place: it remembers what it was told, or refuses."""

    def __init__(self, refusal: str | None = None) -> None:
        self.configs: list[Config] = []
        self._refusal = refusal

    def reconfigure(self, config: Config) -> None:
        if self._refusal is not None:
            raise ModeUnavailable(self._refusal)
        self.configs.append(config)


def test_detection_and_log_take_effect() -> None:
    """They are what an operator changes on a running exporter."""
    fresh = Config(detection=Detection(mode="scan", retry_seconds=5, scan=Scan(0.5)), log=Log("debug"))
    assert after_reload(Config(), fresh) == (fresh, [])


def test_what_counters_rest_on_waits_for_a_restart() -> None:
    """A threshold that changed under a counter would make its past and its present two different things."""
    fresh = Config(detection=Detection(mode="scan", short_threshold_seconds=2), metrics=Metrics(max_comms=7))
    config, waiting = after_reload(Config(), fresh)
    assert config == Config(detection=Detection(mode="scan"))
    assert waiting == ["detection.short_threshold_seconds", "metrics.max_comms"]


@pytest.mark.parametrize("bad", ["the file", "the mode"])
def test_a_bad_one_is_refused_whole(bad: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged and in the metrics, and a good one afterwards is taken."""
    monkeypatch.setattr("exporter.process.log.setup", lambda *_: None)  # or it would take the place of pytest's
    supervisor = Told("scan can't run: no /proc" if bad == "the mode" else None)
    answers: list[Config | ConfigError] = [ConfigError("x.yml: mode: bad") if bad == "the file" else Config()]

    def reread() -> Config:
        if isinstance(answers[0], ConfigError):
            raise answers[0]
        return answers[0]

    reloader = Reloader(Config(), supervisor, reread)  # type: ignore[arg-type]
    begun = reloader.last.succeeded_at
    with caplog.at_level(logging.ERROR):
        reloader.run()
    assert (reloader.last.successful, reloader.last.succeeded_at) == (False, begun)
    assert caplog.messages == ["configuration rejected; keeping the previous one"]
    answers[0], supervisor._refusal = replace(Config(), log=Log("error")), None
    reloader.run()
    assert reloader.last.successful
    assert reloader.last.succeeded_at > begun
    assert supervisor.configs == [Config(log=Log("error"))]
