"""`make features`: one line for each feature, with what was measured of it here and now.

A feature is a function that tries it for real and tells the result in a line; it raises if the feature does not do what it should.
Append yours to `FEATURES`, and a form of a second or less to `SHORT`.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import openai

from bench.cost_levers import cascade_line, coalescing_line, trim_line
from bench.faults import fault_line
from bench.hedging import hedging_line
from bench.levers_alone import cascade_alone, trim_alone
from bench.line import Line
from bench.semantic import semantic_line
from bench.tls import tls_line, tls_line_inside
from tests.gateway.fault_table import CASES
from tests.gateway.grpc_client import credentials, question, serving, texts
from tests.gateway.house import KEY, House, running

Feature = Callable[[Path], Awaitable[Line]]
_CALLS = 200
_SAID = "one two three four"


def _client(house: House) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=KEY, max_retries=0, timeout=20)


async def _median_ms(call: Callable[[], Awaitable[Any]], count: int) -> float:
    """The median time of `count` calls, one after the other."""
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        await call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e3


def _once_each(house: House, calls: int) -> None:
    names = [record.id for record in house.exchanges()]
    if not len(names) == len(set(names)) == calls:
        raise AssertionError(f"{calls} calls left {len(names)} records of {len(set(names))} requests")


async def grpc(data: Path, *, calls: int = _CALLS) -> Line:
    """The same question over gRPC and over HTTP."""
    async with running(data) as house, serving(data) as stub, _client(house) as client:
        chat: Any = [{"role": "user", "content": _SAID}]
        http = await _median_ms(lambda: client.chat.completions.create(model="mock", messages=chat), calls)
        asked = question(_SAID)
        answer = await stub.ModelInfer(asked, metadata=credentials())
        if texts(answer) != [_SAID]:
            raise AssertionError("the answers differ")
        took = await _median_ms(lambda: stub.ModelInfer(asked, metadata=credentials()), calls)
        pieces = [one async for one in stub.ModelStreamInfer(iter([asked]), metadata=credentials())]
        if "".join(texts(one.infer_response)[0] for one in pieces if one.infer_response.outputs) != _SAID:
            raise AssertionError("the stream differs")
        await house.settled()
        _once_each(house, 2 * calls + 2)
    said = "{calls} calls: median {took:.2f} ms (HTTP with the official client {http:.2f} ms); one record each; streams equal"
    return Line(said, {"calls": calls, "took": took, "http": http})


async def responses(data: Path, *, calls: int = _CALLS) -> Line:
    """The Responses API beside chat completions, whole and as a stream."""
    async with running(data) as house, _client(house) as client:
        chat: Any = [{"role": "user", "content": _SAID}]
        plain = await _median_ms(lambda: client.chat.completions.create(model="mock", messages=chat), calls)
        took = await _median_ms(lambda: client.responses.create(model="mock", input=_SAID), calls)
        async with client.responses.stream(model="mock", input=_SAID) as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_response()
        if final.output_text != _SAID or kinds[-1] != "response.completed":
            raise AssertionError("the stream differs")
        await house.settled()
        _once_each(house, 2 * calls + 1)
    said = "{calls} calls: median {took:.2f} ms (chat completions {plain:.2f} ms); a stream of {events} events, equal"
    return Line(said, {"calls": calls, "took": took, "plain": plain, "events": len(kinds)})


async def embeddings(data: Path, *, calls: int = _CALLS) -> Line:
    """Vectors of many texts at a time, and the same again."""
    async with running(data) as house, _client(house) as client:
        given = [f"text {number}" for number in range(64)]
        reply = await client.embeddings.create(model="mock", input=given, encoding_format="float")
        if [one.index for one in reply.data] != list(range(64)):
            raise AssertionError("not every text has its vector")
        one = await _median_ms(
            lambda: client.embeddings.create(model="mock", input="text", encoding_format="float"), calls
        )
        many = await _median_ms(
            lambda: client.embeddings.create(model="mock", input=given, encoding_format="float"), calls
        )
        await house.settled()
        _once_each(house, 2 * calls + 1)
    figures = {"one": one, "many": many, "texts": len(reply.data)}
    return Line("median {one:.2f} ms for one text, {many:.2f} ms for {texts}", figures)


FEATURES: list[tuple[str, Feature]] = [
    ("gRPC", grpc),
    ("TLS", tls_line),
    ("/v1/responses", responses),
    ("/v1/embeddings", embeddings),
    ("semantic cache", semantic_line),
    ("cascade", cascade_line),
    ("context trimming", trim_line),
    ("coalescing", coalescing_line),
    ("hedging", hedging_line),
    ("faults", fault_line),
]


# The same in a second or less each, on a machine that has other things to do: for whoever wants to see that they run.
SHORT: dict[str, Feature] = {
    "gRPC": partial(grpc, calls=3),
    "TLS": tls_line_inside,
    "/v1/responses": partial(responses, calls=3),
    "/v1/embeddings": partial(embeddings, calls=2),
    "semantic cache": partial(semantic_line, pairs=6, others=30, shelf=6),
    "cascade": cascade_alone,
    "context trimming": trim_alone,
    "coalescing": partial(coalescing_line, count=4),
    "hedging": partial(hedging_line, requests=120, workers=4, slow_s=0.3, share=1.0),
    "faults": partial(fault_line, cases=CASES[:6]),
}


async def measured(names: set[str], *, short: bool = False) -> dict[str, str]:
    """The lines of `names`, or of all, in the table's order."""
    found: dict[str, str] = {}
    for name, feature in FEATURES:
        if names and name not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                found[name] = str(await (SHORT[name] if short else feature)(Path(folder)))
            except AssertionError as error:
                found[name] = f"FAILED: {error}"
    return found


def main() -> int:
    """Prints the table, or JSON with `--json`; 1 if a feature fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="comma-separated features")
    parser.add_argument("--short", action="store_true", help="a few requests each, and servers in the models' place")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = asyncio.run(measured({name for name in options.only.split(",") if name}, short=options.short))
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        for name, result in found.items():
            print(f"{name:18} {result}")
    return int(any(result.startswith("FAILED") for result in found.values()))


if __name__ == "__main__":
    sys.exit(main())
