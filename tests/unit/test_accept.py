"""Which format and coding a client gets, by RFC 9110 and by what Prometheus servers ask."""

from __future__ import annotations

import gzip
import random

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.metrics.formats import FORMATS, OPENMETRICS, PROTOBUF, TEXT, TEXT_1, Format
from exporter.records.hub import Hub
from exporter.web.accept import accepts_gzip, negotiate
from tests.unit.pages import served
from tests.unit.protobuf_families import parse_protobuf
from tests.unit.snapshots import ordinary
from tests.unit.web_clients import ask

PROTO = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
OM = "application/openmetrics-text"
PROMETHEUS_2_42 = f"{OM};version=1.0.0,{OM};version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
PROMETHEUS_3 = (
    f"{OM};version=1.0.0;escaping=allow-utf-8;q=0.5,{OM};version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        (BROWSER, TEXT),
        (PROMETHEUS_2_42, OPENMETRICS),
        (f"{PROTO},{PROMETHEUS_2_42.replace('1.0.0', '1.0.0;q=0.8', 1)}", PROTOBUF),
        (PROMETHEUS_3, OPENMETRICS),
        (f"{PROTO};q=0.6,{PROMETHEUS_3}", PROTOBUF),
        (OM, OPENMETRICS),
        (f'{OM};version="1.0.0"', OPENMETRICS),
        (f"{OM.upper()} ; VERSION = 1.0.0 ; charset=utf-8", OPENMETRICS),
        (f"{OM};version=abc", TEXT),
        (f"{OM};version=2.0.0", TEXT),
        (f"{OM};version=0.0.1", TEXT),
        (f"{OM};version=2.0.0,{OM};version=1.0.0;q=0.1", OPENMETRICS),
        (f"{OM};q=0.4,text/plain;q=0.5", TEXT),
        (f"{OM};q=0,*/*;q=0.1", TEXT),
        (f"{OM},text/plain", OPENMETRICS),
        (f"text/plain,{OM}", TEXT),
        ("text/plain;version=1.0.0", TEXT_1),
        ("text/plain;version=3", TEXT),
        ("text/*;q=0.5", TEXT),
        ("text/*;q=0.5, application/*", OPENMETRICS),
        ("text/plain;q=0, */*", OPENMETRICS),
        ("text/plain;q=0.1, */*;q=0.9, text/plain;version=1.0.0;q=0", OPENMETRICS),
        (PROTO.replace("delimited", "text"), TEXT),
        ("application/vnd.google.protobuf", TEXT),
        (f"{PROTO};q=0.000", TEXT),
        (f"{PROTO};q=2", TEXT),
        (f"{PROTO};q=nan,{OM};q=0.001", OPENMETRICS),
        (f'x/y;a=",{PROTO}"', TEXT),
        (f'x/y;a="\\",{OM},{PROTO}', TEXT),
        (f"{','.join(['x/y'] * 500)},{PROTO}", TEXT),
    ],
)
def test_the_format(accept: str, form: Format) -> None:
    """What is wanted most of what there is; a version that there is not is no wish for another one."""
    assert negotiate(accept)[0] is form


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=1.0.0;escaping=values", "text/plain; version=1.0.0; charset=utf-8; escaping=values"),
        (PROMETHEUS_2_42, f"{OM}; version=1.0.0; charset=utf-8; escaping=underscores"),
        (PROMETHEUS_3, f"{OM}; version=1.0.0; charset=utf-8; escaping=allow-utf-8"),
        (f"{OM};escaping=dots", f"{OM}; version=1.0.0; charset=utf-8; escaping=dots"),
        (f"{OM};escaping=\x80", f"{OM}; version=1.0.0; charset=utf-8; escaping=underscores"),
        (PROTO, f"{PROTO.replace(';', '; ')}; escaping=underscores"),
    ],
)
def test_the_content_type(accept: str, content_type: str) -> None:
    """It says what the body is, never what the client called it."""
    assert negotiate(accept)[1] == content_type


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("*", True),
        ("x-gzip", True),
        ("gzip;;", True),
        ("gzip ; q=1.000", True),
        ("gzip;q=0.5, identity;q=0.5", True),
        ("", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("*;q=1, gzip;q=0", False),
        ("gzip;q=0.5, identity", False),
        ("gzip;q=2", False),
        ("gzipped", False),
    ],
)
def test_accept_encoding(header: str, accepted: bool) -> None:
    """Weights are easy to get wrong, and a wrong one breaks a scrape."""
    assert accepts_gzip(header) is accepted


WORDS = [
    *(*PROTO.split(";"), OM, "text/plain", "text/*", "*/*", "*", "application/*", "gzip", "identity", "x-gzip", "br"),
    *("version=1.0.0", 'version="1.0.0"', "version=0.0.4", "version=abc", "version=2.0.0", "escaping=allow-utf-8", "escaping=x"),
    *("q=0", "q=1", "q=0.5", "q=1.1", "q=-1", "q=nan", "q=", "q", "Q=0.333", "charset=a", "proto=x"),
    *('"', "\\", "=", ";", ",", " ", "\t", "\xff", "/", '"\\"', "\x7f"),
]


def headers(n: int) -> list[str]:
    """Headers of words that belong there and of such that do not, always the same."""
    chance = random.Random(1)
    return [
        "".join(word + separator for word, separator in zip(chance.choices(WORDS, k=size), chance.choices(";,  ", k=size), strict=True))
        for size in chance.choices(range(8), k=n)
    ]


def test_any_header_has_an_answer() -> None:
    """No error that a client can cause, and no answer but those that the next test reads."""
    accepted = list(headers(50_000))
    answers = {negotiate(accept) for accept in accepted}
    assert {form for form, _ in answers} == set(FORMATS)
    assert len(answers) < 12
    assert {accepts_gzip(accept) for accept in accepted} == {True, False}


@pytest.mark.parametrize("coding", ["gzip;q=0.5", "gzip;q=0", "gzip;q=0, *", "br"])
@pytest.mark.parametrize("accept", ["", "text/plain;version=1.0.0", OM, PROTO, f"{OM};version=abc", 'x/y;a="', "\xff;q=\xff"])
def test_each_answer_is_what_it_says(accept: str, coding: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its own parser takes it, in the coding that was asked for."""
    with served(ordinary(), Hub(10)) as site:
        status, found, body = ask(site.url, "/metrics", Accept=accept, Accept_Encoding=coding)
    assert (status, caplog.records, found["Vary"]) == (200, [], "Accept, Accept-Encoding")
    assert (found["Content-Encoding"] == "gzip") is (coding == "gzip;q=0.5")
    plain = gzip.decompress(body) if found["Content-Encoding"] else body
    match found.get_content_type():
        case "application/vnd.google.protobuf":
            families = {family.name for family in parse_protobuf(plain)}
        case "application/openmetrics-text":
            families = {f"{family.name}_total" if family.type == "counter" else family.name for family in parse_openmetrics(plain.decode())}
        case _:
            families = {f"{family.name}_total" if family.type == "counter" else family.name for family in parse_text(plain.decode())}
    assert {"shortproc_comm_exits_total", "shortproc_process_runtime_seconds", "python_info"} <= families
