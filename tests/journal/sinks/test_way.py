"""The whole way: a request at the gateway, its record, the shipper as people start it, and what the sinks then hold."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from penstock.core.exchange import Exchange
from penstock.journal.otlp import OtlpHttp
from tests.gateway.house import running
from tests.gateway.raw_client import ask, post
from tests.journal.fake_control import FakeControl
from tests.journal.records import observation
from tests.journal.sinks.collector import Collector, GrpcCollector, span_ids
from tests.journal.sinks.elastic_server import Elastic
from tests.journal.sinks.records import PARENT, TRACE, journal, served
from tests.ports import free_port

ROOT = Path(__file__).parents[3]


async def until(condition: Callable[[], bool], deadline_s: float = 60.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.02)


def values(span: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


async def test_a_stream_at_the_gateway_is_a_trace_that_the_engine_goes_on_with(tmp_path: Path) -> None:
    collector = Collector()
    carrier = OtlpHttp(await collector.start())
    body = b'{"model":"mock","stream":true,"messages":[{"role":"user","content":"a secret question"}]}'
    async with running(tmp_path) as house:
        more = b"traceparent: %b-%b-01\r\n" % (TRACE[:35].encode(), PARENT.encode())
        began = time.time_ns()
        assert (await ask(house.port, post("/v1/chat/completions", body, more=more))).status == 200
        took = time.time_ns() - began
        await house.settled()
        (exchange,) = house.exchanges()
        onward = house.mock.heads[-1][b"traceparent"].decode()
    assert await carrier.offer("gateway-0", [exchange]) == ""
    spans = list(collector.spans.values())
    (root,) = [span for span in spans if span.parent_span_id.hex() == PARENT]
    assert onward == f"00-{root.trace_id.hex()}-{root.span_id.hex()}-01"
    assert {span.trace_id.hex() for span in spans} == {TRACE[3:35]}
    phases = [span for span in spans if span is not root]
    assert {span.parent_span_id for span in phases} == {root.span_id}
    whole = root.end_time_unix_nano - root.start_time_unix_nano
    assert sum(span.end_time_unix_nano - span.start_time_unix_nano for span in phases) == whole
    assert 0 < whole <= took
    (model,) = [span for span in phases if span.name == "chat mock"]
    told = values(model)
    assert told["gen_ai.usage.output_tokens"] == exchange.usage.completion > 0
    assert told["gen_ai.request.stream"]
    assert [event.name for event in model.events] == ["first token"]
    assert not any(b"secret" in span.SerializeToString() for span in spans)
    await carrier.close()
    await collector.stop()


async def test_the_shipper_as_people_start_it(tmp_path: Path) -> None:
    exchanges: list[Exchange] = [served(n) for n in range(30)]
    journal(tmp_path / "journal", [*exchanges, observation(1)])
    (tmp_path / "ship" / "zipkin").mkdir(parents=True)
    control, elastic, far = FakeControl(), Elastic(), GrpcCollector()
    (tmp_path / "service.token").write_text("token")
    command = [sys.executable, "-m", "penstock.cli", "ship", "--data", str(tmp_path), "--ship-port", str(free_port())]
    process = await asyncio.create_subprocess_exec(
        *command,
        "--control-url",
        await control.start(),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")},
            "PYTHONPATH": str(ROOT / "src"),
            "PENSTOCK_SHIP_OTLP_URL": await far.start(),
            "PENSTOCK_SHIP_ELASTICSEARCH_URL": await elastic.start(),
            "PENSTOCK_SHIP_ELASTICSEARCH_API_KEY": "abc",
            "PENSTOCK_SHIP_ELASTICSEARCH_RETENTION_DAYS": "3",
            "PENSTOCK_SHIP_STDOUT": "true",
        },
    )
    try:
        await until(lambda: len(elastic.ids()) == 30 and len(control.ids("w")) == 31 and len(far.kept.spans) == 180)
    finally:
        process.send_signal(signal.SIGTERM)
        said, _ = await process.communicate()
    assert process.returncode == 0
    assert b"zipkin: has no sink any more" in said
    assert b"abc" not in said
    lines = [msgspec.json.decode(line) for line in said.splitlines() if line.startswith(b"{")]
    assert sorted(line["event"]["id"] for line in lines) == sorted([*(e.id for e in exchanges), "o1"])
    assert all(line in elastic.documents[f"logs-{line['data_stream']['dataset']}-default"].values() for line in lines)
    assert set(far.kept.spans) == span_ids(exchanges)
    assert len(elastic.ids("observation")) == 1
    assert elastic.policies["penstock"]["policy"]["phases"]["delete"]["min_age"] == "3d"
    assert {path.name for path in (tmp_path / "ship").iterdir()} >= {"control", "otlp", "elasticsearch"}
    assert not (tmp_path / "ship" / "zipkin").exists()
    await elastic.stop()
    await far.stop()
    await control.server.drain(0.2)
