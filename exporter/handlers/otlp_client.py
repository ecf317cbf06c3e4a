"""The client of the sink `otlp`: OpenTelemetry's exporter, and what it does not tell, above all what the receiver answered.

The exporter (`OTLPLogExporter` of opentelemetry-exporter-otlp-proto-http 1.45) encodes a batch, sends it, and retries for up to `timeout`
seconds: after connection errors and 429, 502, 503 and 504, with exponential backoff or as long as Retry-After says, if that ends in time.
Then it returns only SUCCESS or FAILURE. To it, a redirect is a success, and so is a partial one, whose rejected records it does not count.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
from google.protobuf.message import DecodeError
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from exporter import __version__
from exporter.handlers import Record
from exporter.handlers.headers_file import HeadersFile
from exporter.model import Outcome
from exporter.records import shown
from exporter.records.attributes import attributes

NAME = "shortproc-exporter"
EVENT = "shortproc.exit"
_LOGS_PATH = "/v1/logs"
_RETRYABLE = (429, 502, 503, 504)
"""https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes"""
_LONGEST_RETRY_AFTER_SECONDS = 300.0
_MOST_ANSWER_BYTES = 64 * 1024
_MOST_TEXT = 200
_INFO, _WARNING, _ERROR = SeverityNumber.INFO, SeverityNumber.WARN, SeverityNumber.ERROR


class Answer(NamedTuple):
    """What became of a batch."""

    rejected: int = 0
    """Records that the receiver has refused for good."""
    error: str = ""
    retry: bool = False
    """Whether to send the batch again."""
    retry_after: float = 0.0
    """Seconds to wait at least."""

    @property
    def failed(self) -> bool:
        return self.retry or self.rejected > 0


class Client:
    """Sends batches. For one thread; `close` may come from another."""

    def __init__(self, endpoint: str, headers_file: str, ca_file: str, compression: str, timeout_seconds: float) -> None:
        for name in ("opentelemetry", "urllib3"):  # they log each retry, with text of the receiver
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._session = _Session()
        self._headers = HeadersFile(headers_file) if headers_file else None
        self._exporter = OTLPLogExporter(
            endpoint=endpoint if urlsplit(endpoint).path.strip("/") else endpoint.rstrip("/") + _LOGS_PATH,
            certificate_file=ca_file or _system_authorities(),
            timeout=timeout_seconds,
            compression=Compression(compression),
            session=self._session,
        )
        self._resource = Resource(
            {"service.name": NAME, "service.version": __version__, "host.name": socket.gethostname(), "os.type": "linux"}
        )
        self._scope = InstrumentationScope(NAME, __version__)
        self._context = Context()

    def send(self, batch: Sequence[Record]) -> Answer:
        """Send a batch. Takes up to `timeout_seconds`, longer if the receiver answers in small pieces."""
        if self._headers is not None:
            try:
                self._session.more = self._headers.read()
            except (OSError, ValueError) as error:
                return Answer(error=f"headers_file: {error}", retry=True)
        self._session.forget()
        self._exporter.export([self._log_record(record) for record in batch])
        return self._session.answer(len(batch))

    def close(self) -> None:
        """Let a `send` that waits for its next try return."""
        self._exporter.shutdown()

    def _log_record(self, record: Record) -> ReadableLogRecord:
        severity = _severity(record.outcome, record.oom_killed)
        log_record = LogRecord(
            timestamp=record.ended_ns,
            observed_timestamp=record.ended_ns,
            context=self._context,
            severity_number=severity,
            severity_text=severity.name,
            body=_body(record),
            attributes=attributes(record),
            event_name=EVENT,
        )
        return ReadableLogRecord(log_record, self._resource, self._scope)


class _Session(requests.Session):
    """The SDK's session, which notes the last answer. No proxies, passwords or certificates come from the environment or ~/.netrc."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.more: Mapping[str, str] = {}
        """Headers besides those of the SDK."""
        self.forget()

    def forget(self) -> None:
        self._tried = False
        self._error: Exception | None = None
        self._response: requests.Response | None = None
        self._body = b""

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        self.forget()
        self._tried = True
        request.headers.update(self.more)
        try:
            response = super().send(request, **(kwargs | {"stream": True}))
            self._body = response.raw.read(_MOST_ANSWER_BYTES, decode_content=True)
            response.close()
        except Exception as error:
            self._error = error
            raise
        self._response = response
        return response

    def answer(self, records: int) -> Answer:
        """Return what the last answer means for a batch of so many records."""
        response = self._response
        if response is None:
            if not self._tried:
                return Answer(rejected=records, error="the request cannot be made")
            return Answer(error=_reason(self._error), retry=True)
        if response.status_code in _RETRYABLE:
            return Answer(error=f"status {response.status_code}", retry=True, retry_after=_retry_after(response))
        if not 200 <= response.status_code < 300:
            return Answer(rejected=records, error=f"status {response.status_code}")
        return self._partial(records)

    def _partial(self, records: int) -> Answer:
        try:
            partial = ExportLogsServiceResponse.FromString(self._body).partial_success
        except DecodeError:  # such as JSON of a proxy; the status says that it was accepted
            return Answer()
        rejected = min(max(partial.rejected_log_records, 0), records)
        return Answer(rejected=rejected, error=_short(partial.error_message) or "partial success") if rejected else Answer()


def _severity(outcome: Outcome, oom_killed: bool | None) -> SeverityNumber:
    if oom_killed:
        return _ERROR
    return _WARNING if outcome in (Outcome.ERROR, Outcome.SIGNAL) else _INFO


def _body(record: Record) -> str:
    fate = shown.fate(record.outcome, record.code, record.oom_killed)
    return f"{shown.name(record.comm)}: {fate} after {shown.milliseconds(record.runtime_ns)} ms"


def _system_authorities() -> str | None:
    """Return the system's certificate authorities; None for those of the package certifi."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.capath


def _retry_after(response: requests.Response) -> float:
    try:
        seconds = Retry().get_retry_after(response.raw)
    except InvalidHeader:
        return 0.0
    return min(seconds or 0.0, _LONGEST_RETRY_AFTER_SECONDS)


def _reason(error: Exception | None) -> str:
    """Return the innermost cause: the outer ones contain the whole request."""
    causes = list(_causes(error))
    return _short(f"{type(causes[-1]).__name__}: {causes[-1]}") if causes else "no answer"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _short(text: str) -> str:
    return text[:_MOST_TEXT]
