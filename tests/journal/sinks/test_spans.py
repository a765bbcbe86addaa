"""Spans follow from the exchange alone, hang together, and leave no time out."""

from itertools import pairwise

import opentelemetry.semconv._incubating.attributes.gen_ai_attributes as gen_ai
import opentelemetry.semconv.attributes.error_attributes as error
import opentelemetry.semconv.attributes.http_attributes as http
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from opentelemetry.semconv._incubating.attributes import user_attributes as user

from penstock.core.engine_phases import EnginePhases
from penstock.core.exchange import Exchange, Finding, Phases, Try, Usage
from penstock.journal.sampling import Sampling, is_sampled
from penstock.journal.spans import Span, spans_of, trace_of
from tests.journal.sinks.records import EXCHANGES, PARENT, TRACE, served

CONVENTIONS = {
    value
    for module in (gen_ai, error, http, user)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
}


def apart(exchange: Exchange) -> tuple[Span, list[Span], list[Span], list[Span]]:
    """The request's span, those of its phases, those of its engine's, those of replicas that were asked in vain."""
    request, *rest = spans_of(exchange)
    tries = [span for span in rest if "penstock.try" in span.attributes]
    engine = [span for span in rest if span.name.startswith("engine ")]
    return request, [span for span in rest if span not in tries and span not in engine], engine, tries


@given(EXCHANGES)
def test_phases_add_up_to_the_request_and_ids_are_the_same_each_time(exchange: Exchange) -> None:
    spans = spans_of(exchange)
    request, phases, engine, tries = apart(exchange)
    assert spans == (request, *phases, *engine, *tries) == spans_of(exchange)
    assert len({span.id for span in spans}) == len(spans)
    assert {span.trace for span in spans} == {request.trace}
    assert all(len(span.id) == 8 and any(span.id) and len(span.trace) == 16 and any(span.trace) for span in spans)
    assert {span.parent for span in (*phases, *tries)} <= {request.id}
    assert sum(span.end_ns - span.start_ns for span in phases) == request.end_ns - request.start_ns
    ends = [request.start_ns]
    for span in phases:
        assert span.start_ns == ends[-1] < span.end_ns
        ends.append(span.end_ns)
    marks = exchange.phases
    highest = max(marks.decoded, marks.admitted, marks.dispatched, marks.done)
    reached = max(highest, marks.first_token, marks.last_token)
    assert request.end_ns - request.start_ns == reached
    for span in tries:
        assert request.start_ns <= span.start_ns <= span.end_ns <= request.end_ns
    calls = [span for span in phases if span.kind == "client"]
    assert not engine or [span.id for span in calls] == [engine[0].parent]
    if engine:
        ends = [calls[0].start_ns, *[at for span in engine for at in (span.start_ns, span.end_ns)], calls[0].end_ns]
        assert ends == sorted(ends)
        assert all(one.end_ns == other.start_ns for one, other in pairwise(engine))


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


def test_the_engine_s_phases_are_below_the_model_s_call() -> None:
    told = EnginePhases(1_000_000, 2_000_000, 8_000_000, 70_000_000, 0)
    exchange = served(1, trace=TRACE, engine=told, replica="r7", usage=Usage(10, 20, 4), tried=Usage(3, 4, 1))
    request, phases, engine, tries = apart(exchange)
    call = phases[3]
    assert (len(spans_of(exchange)), tries) == (10, [])
    assert [(span.name, span.kind, span.parent) for span in engine] == [
        (f"engine {name}", "internal", call.id) for name in ("preprocess", "queue", "prefill", "decode")
    ]
    begins = [(span.start_ns - request.start_ns, span.end_ns - span.start_ns) for span in engine]
    # Its first token may have come between 11 ms after 90 us and 20 ms: the middle is taken.
    first = (90_000 + 9_000_000) // 2
    assert begins[0] == (first, 1_000_000)
    assert begins[2] == (first + 3_000_000, 8_000_000)
    assert {span.attributes["penstock.replica"] for span in engine} == {"r7"}
    prefill, decode = engine[2].attributes, engine[3].attributes
    assert (prefill["gen_ai.usage.input_tokens"], prefill["gen_ai.usage.cache_read.input_tokens"]) == (7, 3)
    assert decode["gen_ai.usage.output_tokens"] == 16
    assert prefill["gen_ai.response.model"] == "bot:v1"
    assert [span.id for span in engine] == [span.id for span in apart(exchange)[2]]


def test_a_replica_that_was_asked_in_vain_is_beside_the_one_that_answered() -> None:
    lost = (Try("failed", "p", "r0", 70_000, 80_000, "upstream_reset"), Try("hedge", "p", "r1", 85_000, 30_000_000))
    request, phases, _, (first, second) = apart(served(1, tries=lost))
    assert (first.name, first.kind, first.parent) == ("chat bot", "client", request.id)
    assert (first.start_ns - request.start_ns, first.end_ns - request.start_ns) == (70_000, 80_000)
    assert (first.failed, first.problem, first.attributes["error.type"]) == (True, "upstream_reset", "upstream_reset")
    assert (second.failed, second.attributes["penstock.try"]) == (False, "hedge")
    assert "error.type" not in second.attributes
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
