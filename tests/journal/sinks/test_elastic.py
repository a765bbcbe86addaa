"""Elasticsearch through a real socket: bulk requests as the official client makes them, and every way to refuse."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from elasticsearch import Elasticsearch
from elasticsearch.helpers import streaming_bulk

from penstock.core.errors import PenstockError, Unavailable
from penstock.core.exchange import Finding
from penstock.journal.ecs import Document, document_of
from penstock.journal.elastic import ElasticSink, _body
from penstock.journal.elastic_template import index_template, lifecycle
from penstock.journal.refusals import DeadLetters
from penstock.journal.ship import Shipper
from tests.journal.records import observation, opened
from tests.journal.sinks.elastic_server import Elastic
from tests.journal.sinks.records import journal, served
from tests.journal.sinks.test_traces import ship


@pytest.fixture
async def elastic() -> AsyncIterator[Elastic]:
    one = Elastic()
    yield one
    await one.stop()


def sink_of(url: str, folder: Path, **more: Any) -> ElasticSink:
    return ElasticSink(url, DeadLetters(folder / "dead.ndjson"), pause_s=0.001, **more)


def shipper(sink: ElasticSink, folder: Path) -> Shipper:
    return Shipper(sink, folder / "journal", folder / "ship")


async def test_every_record_is_one_document_through_faults(tmp_path: Path, elastic: Elastic) -> None:
    exchanges = [served(n) for n in range(300)]
    told = [observation(n) for n in range(20)]
    journal(tmp_path / "journal", [opened(0), *exchanges, *told], segment_bytes=20_000)
    faults: list[int | str | None] = [429, None, "silent", 503, "silent", None, 401, 502]
    elastic.fault = lambda: faults.pop(0) if faults else None
    sink = sink_of(await elastic.start(), tmp_path, api_key="abc")
    one = shipper(sink, tmp_path)
    await ship(one)
    assert elastic.ids() == [exchange.id for exchange in exchanges]
    assert elastic.ids("observation") == sorted(document_of(one, 10.0).id for one in told)
    assert elastic.repeats
    assert elastic.puts == 2
    assert set(elastic.authorizations) == {"ApiKey abc"}
    assert (one.lag(), sink.tally.dead) == (0, 0)
    await sink.close()


async def test_documents_that_are_put_off_are_sent_again_alone(tmp_path: Path, elastic: Elastic) -> None:
    exchanges = [served(n) for n in range(50)]
    journal(tmp_path / "journal", list(exchanges))
    asked: Counter[str] = Counter()

    def item(name: str) -> tuple[int, str] | None:
        asked[name] += 1
        busy = int(name.removeprefix("req_")) % 5 == 0 and asked[name] < 3
        return (429, "es_rejected_execution_exception") if busy else None

    elastic.item = item
    sink = sink_of(await elastic.start(), tmp_path)
    await ship(shipper(sink, tmp_path), tries=2)
    assert elastic.bulks == [50, 10, 10]
    assert elastic.ids() == [exchange.id for exchange in exchanges]
    assert elastic.repeats == 0
    assert sink.tally.retried == 20
    await sink.close()


async def test_one_that_is_put_off_for_long_holds_the_batch_and_loses_nothing(tmp_path: Path, elastic: Elastic) -> None:
    exchanges = [served(n) for n in range(10)]
    journal(tmp_path / "journal", list(exchanges))
    wrong: dict[str, tuple[int, str]] = {
        exchanges[3].id: (429, "cluster_block_exception"),
        exchanges[5].id: (400, "document_parsing_exception"),
        exchanges[6].id: (400, "validation_exception"),  # the cluster has its limit of shards
    }
    elastic.item = wrong.get
    sink = sink_of(await elastic.start(), tmp_path)
    one = shipper(sink, tmp_path)
    for _ in range(2):
        with pytest.raises(Unavailable, match="puts off 2 of 10"):
            await one.step()
    assert not (tmp_path / "dead.ndjson").exists(), "written when the batch is through, so that it is written once"
    del wrong[exchanges[3].id], wrong[exchanges[6].id]
    await ship(one, tries=2)
    assert len(elastic.ids()) == 9
    (line,) = (tmp_path / "dead.ndjson").read_bytes().splitlines()
    letter = msgspec.json.decode(line)
    assert letter["id"] == letter["record"]["event"]["id"] == exchanges[5].id
    assert "document_parsing_exception" in letter["reason"]
    assert sink.tally.dead == 1
    await sink.close()


async def test_a_cluster_that_refuses_everything_is_not_believed(tmp_path: Path, elastic: Elastic) -> None:
    journal(tmp_path / "journal", [served(n) for n in range(10)])
    elastic.item = lambda _: (400, "illegal_argument_exception")
    sink = sink_of(await elastic.start(), tmp_path)
    one = shipper(sink, tmp_path)
    with pytest.raises(PenstockError, match="refuses all of 10"):
        await one.step()
    elastic.item = lambda _: None
    await ship(one)
    assert len(elastic.ids()) == 10
    assert sink.tally.dead == 0
    await sink.close()


async def test_requests_are_bounded_and_halved_where_they_are_too_large(tmp_path: Path, elastic: Elastic) -> None:
    exchanges = [served(n) for n in range(2300)]
    journal(tmp_path / "journal", list(exchanges))
    sink = sink_of(await elastic.start(), tmp_path)
    await ship(shipper(sink, tmp_path), tries=3)
    assert elastic.bulks == [1000, 1000, 300]
    elastic.documents.clear()
    elastic.bulks.clear()
    elastic.most_bytes = 200_000
    huge = served(5000, model="x" * 250_000)
    journal(tmp_path / "journal", [huge])
    again = Shipper(sink, tmp_path / "journal", tmp_path / "anew")
    await ship(again, tries=4)
    assert len(elastic.ids()) == 2300
    assert max(elastic.bulks) <= 125
    assert sink.tally.dead == 1
    assert msgspec.json.decode((tmp_path / "dead.ndjson").read_bytes())["id"] == huge.id
    await sink.close()


async def test_the_template_is_installed_once_and_what_an_operator_changed_stays(
    tmp_path: Path, elastic: Elastic
) -> None:
    url = await elastic.start()
    for days, puts in ((30, 2), (30, 2), (7, 3)):
        sink = sink_of(url.replace("http://", "http://me:p%40ss@"), tmp_path, retention_days=days)
        await sink.positions()
        await sink.positions()
        await sink.close()
        assert elastic.puts == puts
        elastic.policies["penstock"]["policy"]["phases"]["hot"]["min_age"] = "1ms"
    assert elastic.policies["penstock"]["policy"]["phases"]["delete"]["min_age"] == "7d"
    elastic.templates["penstock"]["_meta"] = {"managed_by": "penstock", "revision": 0}
    sink = sink_of(url, tmp_path, retention_days=7)
    await sink.positions()
    assert elastic.templates["penstock"] == index_template()
    await sink.close()
    assert "Basic bWU6cEBzcw==" in elastic.authorizations


async def test_the_official_client_sends_the_same(tmp_path: Path, elastic: Elastic) -> None:
    """What its bulk helper makes of the same documents is taken by the same server, and is the same lines."""
    exchanges = [served(n, findings=(Finding("r", "flag", "input"),)) for n in range(30)]
    documents: list[Document] = [document_of(exchange, 10.0) for exchange in exchanges]
    url = await elastic.start()

    def officially() -> list[tuple[bool, dict[str, Any]]]:
        with Elasticsearch(url) as client:
            client.ilm.put_lifecycle(name="penstock", policy=lifecycle(30)["policy"])
            template = {key.lstrip("_"): value for key, value in index_template().items()}
            client.indices.put_index_template(name="penstock", **template)
            actions = (
                {"_op_type": "create", "_index": d.stream, "_id": d.id, "_source": msgspec.json.decode(d.source)}
                for d in documents
            )
            return list(streaming_bulk(client, actions, chunk_size=1000, raise_on_error=False))

    answers = await asyncio.to_thread(officially)
    assert [ok for ok, _ in answers] == [True] * 30
    held = dict(elastic.documents)
    theirs = [msgspec.json.decode(line) for line in elastic.lines]
    assert theirs == [msgspec.json.decode(line) for line in _body(documents).splitlines()]
    sink = sink_of(url, tmp_path)
    await sink.positions()
    assert elastic.puts == 2, "what the client installed is what we would have"
    journal(tmp_path / "journal", list(exchanges))
    await ship(shipper(sink, tmp_path))
    assert elastic.repeats == 30
    assert elastic.documents == held
    answers = await asyncio.to_thread(officially)
    assert {answer["create"]["status"] for _, answer in answers} == {409}
    await sink.close()
