"""Traces through real sockets: taken, put off, refused for good, left out by sampling."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import msgspec
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

from penstock.core.errors import BadRequest, PenstockError, Unavailable
from penstock.core.exchange import Exchange
from penstock.journal.otlp import OtlpHttp
from penstock.journal.otlp_grpc import OtlpGrpc
from penstock.journal.posting import parse_headers
from penstock.journal.refusals import DeadLetters
from penstock.journal.sampling import Sampling
from penstock.journal.ship import Shipper
from penstock.journal.spans import spans_of
from penstock.journal.traces import Carrier, TraceSink
from penstock.journal.zipkin import Zipkin
from tests.journal.records import observation, opened
from tests.journal.sinks.collector import Collector, GrpcCollector, span_ids
from tests.journal.sinks.records import PARENT, TRACE, journal, served
from tests.journal.sinks.test_encodings import of_the_sdk
from tests.journal.sinks.zipkin_schema import zipkin_faults

EVERY = Sampling()


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    one = Collector()
    yield one
    await one.stop()


def shipper(folder: Path, carrier: Carrier, sampling: Sampling = EVERY) -> Shipper:
    sink = TraceSink(carrier, sampling, DeadLetters(folder / "dead.ndjson"))
    return Shipper(sink, folder / "journal", folder / "ship")


async def ship(one: Shipper, *, tries: int = 50) -> None:
    """To the journal's end, through what fails."""
    for _ in range(tries):
        try:
            if not await one.step():
                return
        except PenstockError:
            continue
    raise AssertionError("it does not come to an end")


@pytest.mark.parametrize("kind", ["otlp", "zipkin"])
async def test_every_span_arrives_through_faults(tmp_path: Path, collector: Collector, kind: str) -> None:
    exchanges = [served(n) for n in range(600)] + [served(600, trace=TRACE, parent=PARENT)]
    journal(tmp_path / "journal", [opened(0), observation(1), *exchanges], segment_bytes=50_000)
    url = await collector.start()
    faults: list[int | str | None] = [503, None, "silent", 429, 500, None, "silent", 404]
    collector.fault = lambda: faults.pop(0) if faults else None
    carrier: Carrier = OtlpHttp(url, parse_headers("x-key=se%2Ccret, other=1")) if kind == "otlp" else Zipkin(url)
    one = shipper(tmp_path, carrier)
    await ship(one)
    assert set(collector.spans) == span_ids(exchanges)
    assert collector.repeats
    assert one.lag() == 0
    assert one.tally.dead == 0
    if kind == "otlp":
        assert all(headers[b"x-key"] == b"se,cret" for headers in collector.headers)
    else:
        assert zipkin_faults(list(collector.spans.values())) == []
    await carrier.close()


@pytest.mark.parametrize("kind", ["otlp", "partial", "zipkin", "grpc"])
async def test_what_is_refused_for_good_is_found_and_written_down(
    tmp_path: Path, collector: Collector, kind: str
) -> None:
    exchanges = [served(n) for n in range(40)]
    bad = exchanges[17]
    journal(tmp_path / "journal", list(exchanges))
    far = GrpcCollector() if kind == "grpc" else None
    holder = collector if far is None else far.kept
    holder.poison = span_ids([bad])
    holder.partial = kind == "partial"
    url = await (collector if far is None else far).start()
    carriers = {"grpc": OtlpGrpc, "zipkin": Zipkin}
    carrier: Carrier = carriers.get(kind, OtlpHttp)(url)
    one = shipper(tmp_path, carrier)
    await ship(one, tries=2)
    assert set(holder.spans) == span_ids([e for e in exchanges if e is not bad])
    assert one.tally.dead == 1
    (letter,) = (tmp_path / "dead.ndjson").read_bytes().splitlines()
    told = msgspec.json.decode(letter)
    assert told["id"] == bad.id
    assert told["reason"]
    assert msgspec.convert(told["record"], Exchange) == bad
    await carrier.close()
    if far is not None:
        await far.stop()


async def test_a_collector_that_refuses_everything_is_not_believed(tmp_path: Path, collector: Collector) -> None:
    exchanges = [served(n) for n in range(10)]
    journal(tmp_path / "journal", list(exchanges))
    collector.poison = span_ids(exchanges)
    carrier = OtlpHttp(await collector.start())
    one = shipper(tmp_path, carrier)
    with pytest.raises(PenstockError, match="refuses all of 10"):
        await one.step()
    assert not (tmp_path / "dead.ndjson").exists()
    assert one.lag() > 0
    collector.poison = set()
    await ship(one)
    assert set(collector.spans) == span_ids(exchanges)
    await carrier.close()


async def test_grpc_holds_what_the_collector_cannot_take_now(tmp_path: Path) -> None:
    exchanges = [served(n) for n in range(5)]
    journal(tmp_path / "journal", list(exchanges))
    far = GrpcCollector()
    url = await far.start()
    far.codes = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAUTHENTICATED]
    carrier = OtlpGrpc(url, parse_headers("authorization=Bearer%20token"))
    one = shipper(tmp_path, carrier)
    with pytest.raises(Unavailable, match="UNAVAILABLE: as told"):
        await one.step()
    await ship(one)
    assert set(far.kept.spans) == span_ids(exchanges)
    assert far.metadata["authorization"] == "Bearer token"
    assert one.tally.dead == 0
    await carrier.close()
    await far.stop()


async def test_the_exporter_of_the_sdk_is_served_alike(collector: Collector) -> None:
    """The collector of these tests takes what OpenTelemetry's own exporter sends, and holds the same after ours."""
    import asyncio

    exchanges = [served(n) for n in range(3)]
    url = await collector.start()
    exporter = OTLPSpanExporter(f"{url}/v1/traces")
    theirs = [of_the_sdk("w", span) for exchange in exchanges for span in spans_of(exchange)]
    await asyncio.to_thread(exporter.export, theirs)
    assert set(collector.spans) == span_ids(exchanges)
    carrier = OtlpHttp(url)
    assert await carrier.offer("w", exchanges) == ""  # the collector compares repeats with the first
    assert collector.repeats == len(collector.spans)
    await carrier.close()
    await asyncio.to_thread(exporter.shutdown)


async def test_sampling_leaves_out_and_counts(tmp_path: Path, collector: Collector) -> None:
    exchanges = [served(n) for n in range(200)]
    failed = served(1000, status=502, outcome="error")
    journal(tmp_path / "journal", [*exchanges, failed])
    carrier = OtlpHttp(await collector.start())
    one = shipper(tmp_path, carrier, Sampling(share=0.25))
    await ship(one)
    assert span_ids([failed]) <= set(collector.spans)
    assert 20 < one.tally.unsampled < 190
    assert len(collector.spans) == len(span_ids([failed])) + (200 - one.tally.unsampled) * 6
    await carrier.close()


@pytest.mark.parametrize("url", ["http://h:1", "grpc://", "grpc://h:4317/path"])
async def test_an_address_that_is_none_is_refused_by_name(url: str) -> None:
    with pytest.raises(BadRequest, match="collector's address"):
        OtlpGrpc(url)


@pytest.mark.parametrize("text", ["novalue", "=x", "a=b%0d%0ac", "ä=1"])
def test_header_fields_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_headers(text)
