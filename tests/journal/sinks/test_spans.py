"""Spans follow from the exchange alone, hang together, and leave no time out."""

import opentelemetry.semconv._incubating.attributes.gen_ai_attributes as gen_ai
import opentelemetry.semconv.attributes.error_attributes as error
import opentelemetry.semconv.attributes.http_attributes as http
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from opentelemetry.semconv._incubating.attributes import user_attributes as user

from penstock.core.exchange import Exchange, Finding, Phases
from penstock.journal.sampling import Sampling, is_sampled
from penstock.journal.spans import spans_of, trace_of
from tests.journal.sinks.records import EXCHANGES, PARENT, TRACE, served

CONVENTIONS = {
    value
    for module in (gen_ai, error, http, user)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
}


@given(EXCHANGES)
def test_phases_add_up_to_the_request_and_ids_are_the_same_each_time(exchange: Exchange) -> None:
    request, *phases = spans = spans_of(exchange)
    assert spans == spans_of(exchange)
    assert len({span.id for span in spans}) == len(spans)
    assert {span.trace for span in spans} == {request.trace}
    assert all(len(span.id) == 8 and any(span.id) and len(span.trace) == 16 and any(span.trace) for span in spans)
    assert {span.parent for span in phases} <= {request.id}
    assert sum(span.end_ns - span.start_ns for span in phases) == request.end_ns - request.start_ns
    ends = [request.start_ns]
    for span in phases:
        assert span.start_ns == ends[-1] < span.end_ns
        ends.append(span.end_ns)
    marks = exchange.phases
    highest = max(marks.decoded, marks.admitted, marks.dispatched, marks.done)
    reached = max(highest, marks.first_token, marks.last_token)
    assert request.end_ns - request.start_ns == reached


@given(EXCHANGES)
def test_names_are_of_the_conventions_or_our_own(exchange: Exchange) -> None:
    for span in spans_of(exchange):
        events = [name for event in span.events for name in event.attributes]
        for name in [*span.attributes, *events]:
            assert name in CONVENTIONS or name.startswith("penstock."), name
        assert all(value not in ("", ()) for value in span.attributes.values())


def test_a_request_belongs_to_its_caller_s_trace() -> None:
    request, *phases = spans_of(served(1, trace=TRACE, parent=PARENT, findings=(Finding("r", "mask", "input"),)))
    assert request.trace.hex() == TRACE[3:35]
    assert request.id.hex() == TRACE[36:52]
    assert (request.parent.hex(), request.remote, request.kind) == (PARENT, True, "server")
    assert [span.name for span in phases] == ["decode", "admit", "dispatch", "chat bot", "settle"]
    assert [span.kind for span in phases] == ["internal", "internal", "internal", "client", "internal"]
    assert phases[3].attributes["gen_ai.usage.output_tokens"] == 20
    assert phases[3].events[0].at_ns - request.start_ns == 20_000_000
    assert request.events[0].at_ns - request.start_ns == 60_000
    assert not any(span.failed for span in (request, *phases))


def test_what_went_wrong_is_marked_where_it_did() -> None:
    spans = spans_of(served(1, status=502, outcome="error", error="upstream_failed"))
    assert [span.name for span in spans if span.failed] == ["POST /v1/chat/completions", "chat bot"]
    assert {span.problem for span in spans if span.failed} == {"upstream_failed"}
    refused = spans_of(
        served(1, status=429, outcome="refused", error="rate_limit_exceeded", phases=Phases(1, 0, 0, 0, 0, 9))
    )
    assert [span.name for span in refused] == ["POST /v1/chat/completions", "decode", "settle"]
    assert not refused[0].failed
    assert refused[0].attributes["error.type"] == "rate_limit_exceeded"


@given(st.binary(min_size=16, max_size=16), st.floats(0.0, 1.0))
def test_the_share_is_opentelemetry_s(trace: bytes, share: float) -> None:
    theirs = TraceIdRatioBased(share).should_sample(None, int.from_bytes(trace), "name").decision
    assert is_sampled(served(1), trace, Sampling(share=share)) == (theirs is Decision.RECORD_AND_SAMPLE)


@settings(max_examples=30)
@given(EXCHANGES, st.booleans())
def test_whoever_will_be_looked_for_is_kept(exchange: Exchange, none: bool) -> None:
    sampling = Sampling(share=0.0 if none else 1.0, slow_s=10.0)
    special = (
        exchange.outcome in {"error", "truncated", "crashed"}
        or exchange.status >= 500
        or bool(exchange.findings)
        or exchange.phases.done > 10e9
    )
    kept = is_sampled(exchange, trace_of(exchange), sampling)
    assert kept or not special
    if not special and not exchange.trace:
        assert kept is not none


def test_a_caller_that_samples_has_its_traces_whole() -> None:
    nothing, all_ = Sampling(share=0.0), Sampling(share=1.0)
    sampled, not_sampled = served(1, trace=TRACE), served(1, trace=TRACE[:-2] + "02")
    assert is_sampled(sampled, trace_of(sampled), nothing)
    assert not is_sampled(not_sampled, trace_of(not_sampled), all_)
