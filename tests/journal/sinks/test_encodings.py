"""What leaves is what OpenTelemetry's own exporter and Zipkin's schema would have."""

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from penstock import __version__
from penstock.core.exchange import Exchange, Observation
from penstock.journal import otlp, zipkin
from penstock.journal.ecs import document_of
from penstock.journal.elastic_template import FIELDS, index_template
from penstock.journal.spans import Span, spans_of
from tests.journal.sinks.elastic_server import leaves, unfit
from tests.journal.sinks.records import EXCHANGES, TOLD
from tests.journal.sinks.zipkin_schema import zipkin_faults

KINDS = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}


def context(trace: bytes, span: bytes, *, remote: bool) -> SpanContext:
    return SpanContext(int.from_bytes(trace), int.from_bytes(span), remote, TraceFlags(1))


def of_the_sdk(worker: str, span: Span) -> ReadableSpan:
    """The span as OpenTelemetry's SDK holds it."""
    return ReadableSpan(
        name=span.name,
        context=context(span.trace, span.id, remote=False),
        parent=context(span.trace, span.parent, remote=span.remote) if span.parent else None,
        resource=Resource(otlp.resource_of(worker)),
        attributes=span.attributes,
        events=[Event(event.name, event.attributes, event.at_ns) for event in span.events],
        kind=KINDS[span.kind],
        status=Status(StatusCode.ERROR, span.problem) if span.failed else Status(),
        start_time=span.start_ns,
        end_time=span.end_ns,
        instrumentation_scope=InstrumentationScope(otlp.SCOPE, __version__),
    )


@settings(max_examples=60)
@given(st.lists(EXCHANGES, min_size=1, max_size=3))
def test_otlp_is_what_the_sdk_makes_of_the_same_spans(exchanges: list[Exchange]) -> None:
    sent = otlp.encode("w", exchanges).SerializeToString()
    theirs = encode_spans([of_the_sdk("w", span) for exchange in exchanges for span in spans_of(exchange)])
    assert ExportTraceServiceRequest.FromString(sent) == theirs


@given(st.lists(EXCHANGES, min_size=1, max_size=3))
def test_zipkin_has_nothing_that_its_schema_forbids(exchanges: list[Exchange]) -> None:
    spans = json.loads(zipkin.encode("w", exchanges))
    assert zipkin_faults(spans) == []
    ours = [span for exchange in exchanges for span in spans_of(exchange)]
    for made, span in zip(spans, ours, strict=True):
        assert (made["traceId"], made["id"]) == (span.trace.hex(), span.id.hex())
        assert made.get("parentId", "") == span.parent.hex()
        assert made["timestamp"] == span.start_ns // 1000
        assert abs(made["duration"] - (span.end_ns - span.start_ns) / 1000) <= 1
        assert ("error" in made["tags"]) == span.failed


def test_the_schema_of_zipkin_finds_what_is_wrong() -> None:
    good: dict[str, Any] = {
        "traceId": "a" * 32,
        "id": "b" * 16,
        "localEndpoint": {"serviceName": "a", "ipv4": "127.0.0.1"},
    }
    assert zipkin_faults([good, {**good, "traceId": "a" * 16, "shared": True, "annotations": []}]) == []
    for wrong in (
        {"id": "B" * 16},
        {"id": "b" * 15},
        {"traceId": "a" * 20},
        {"parentId": ""},
        {"duration": 0},
        {"duration": 1.5},
        {"timestamp": 1 << 63},
        {"tags": {"a": 1}},
        {"name": "POST"},
        {"other": 1},
        {"kind": "X"},
        {"localEndpoint": {"serviceName": "A"}},
        {"remoteEndpoint": {"port": 70000}},
        {"remoteEndpoint": {"ipv4": "1.2.3"}},
        {"annotations": [{"timestamp": 1}]},
        {"annotations": [{"timestamp": "1", "value": "a"}]},
    ):
        assert zipkin_faults([{**good, **wrong}]) != [], wrong
    for missing in ("traceId", "id"):
        assert zipkin_faults([{name: value for name, value in good.items() if name != missing}]) != []
    assert zipkin_faults(good) != [], "a list of spans"


@given(EXCHANGES | TOLD)
def test_a_document_fits_the_template_and_holds_nothing_that_people_wrote(record: Exchange | Observation) -> None:
    fields = dict(leaves(index_template()["template"]["mappings"]["properties"]))
    assert fields == FIELDS
    document = document_of(record, 10.0)
    assert document == document_of(record, 10.0)
    source = msgspec.json.decode(document.source)
    assert unfit(source, fields) == ""
    assert source["data_stream"]["dataset"] == document.stream.split("-")[1]
    if isinstance(record, Observation):
        told = source["penstock"]["observation"]
        assert "text" not in told and "corrected" not in told
        assert told["text_length"] == len(record.text)


def test_text_of_people_stays_here() -> None:
    record = Observation(
        id="o", at=1.0, received=2.0, kind="feedback", tenant="t", text="Mr Secret", corrected="Mrs Secret"
    )
    assert b"Secret" not in document_of(record, 10.0).source
    other = msgspec.structs.replace(record, tenant="other")
    assert document_of(other, 10.0).id != document_of(record, 10.0).id
