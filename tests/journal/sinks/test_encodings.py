"""What leaves is what OpenTelemetry's own exporter and Zipkin's schema would have."""

import json
import re
from collections.abc import Sequence
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


def zipkin_faults(spans: Sequence[dict[str, Any]]) -> list[str]:
    """What the published definition of a span (zipkin2-api.yaml) and its descriptions forbid."""
    rules: dict[str, Any] = {
        "traceId": lambda v: re.fullmatch("[0-9a-f]{16}([0-9a-f]{16})?", v),
        "id": lambda v: re.fullmatch("[0-9a-f]{16}", v),
        "parentId": lambda v: re.fullmatch("[0-9a-f]{16}", v),
        "name": lambda v: isinstance(v, str) and v == v.lower(),
        "kind": lambda v: v in {"CLIENT", "SERVER", "PRODUCER", "CONSUMER"},
        "timestamp": lambda v: type(v) is int and 0 < v < 1 << 63,
        "duration": lambda v: type(v) is int and 1 <= v < 1 << 63,
        "localEndpoint": lambda v: set(v) <= {"serviceName", "ipv4", "ipv6", "port"} and v["serviceName"].islower(),
        "annotations": lambda v: all(set(a) == {"timestamp", "value"} and type(a["timestamp"]) is int for a in v),
        "tags": lambda v: all(isinstance(key, str) and isinstance(tag, str) for key, tag in v.items()),
    }
    found = []
    for span in spans:
        found += [name for name in ("traceId", "id") if name not in span]
        found += [f"{name}: {value!r}" for name, value in span.items() if name not in rules or not rules[name](value)]
    return found


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


def test_the_checks_of_zipkin_find_what_is_wrong() -> None:
    good = {"traceId": "a" * 32, "id": "b" * 16}
    assert zipkin_faults([good]) == []
    for wrong in ({"id": "B" * 16}, {"duration": 0}, {"tags": {"a": 1}}, {"name": "POST"}, {"other": 1}, {"kind": "X"}):
        assert zipkin_faults([{**good, **wrong}]) != []


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
