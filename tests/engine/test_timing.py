"""How long an answer's phases took, as the real engine tells who asks."""

import json
import time
from pathlib import Path

import httpx
import pytest

from penstock.core.engine_phases import EnginePhases
from penstock.engine.engine import Answer
from penstock.engine.messages import Sampling
from penstock.engine.sequence import Sequence
from penstock.engine.text import Tokenizer
from penstock.engine.timing import phases_of_answer
from penstock.wire.phases import HEADER, phases_of
from tests.engine.conftest import DEADLINE_S, Running

pytestmark = pytest.mark.engine
NAME = HEADER.decode()


def asked(engine: Running, **more: object) -> tuple[httpx.Response, int]:
    """The answer to one who wants to know, and how long it took, in nanoseconds."""
    body = {"model": "tiny", "prompt": "the order", "max_tokens": 24, "seed": 6, "ignore_eos": True, **more}
    begun = time.monotonic_ns()
    answer = httpx.post(f"{engine.url}/v1/completions", json=body, headers={NAME: "tell"}, timeout=DEADLINE_S)
    return answer, time.monotonic_ns() - begun


def check(told: EnginePhases | None, took: int) -> EnginePhases:
    assert told is not None
    assert told.preprocess > 0 and told.queue > 0 and told.prefill > 0 and told.postprocess > 0
    assert sum(length for _, length in told.lengths()) <= took
    return told


def of_stream(text: str) -> EnginePhases | None:
    events = [event for event in text.split("\n\n") if event.startswith(":phases ")]
    assert len(events) == 1
    line, data = events[0].split("\n")
    assert json.loads(data.removeprefix("data: "))["usage"]["completion_tokens"] > 0
    return phases_of(line.removeprefix(":phases ").encode())


def test_a_document_has_them_in_its_head(engine: Running) -> None:
    answer, took = asked(engine)
    told = check(phases_of(answer.headers[NAME].encode()), took)
    assert told.decode > 0
    several, took = asked(engine, n=3)
    check(phases_of(several.headers[NAME].encode()), took)


def test_a_stream_has_them_with_its_usage(engine: Running) -> None:
    answer, took = asked(engine, stream=True, stream_options={"include_usage": True})
    assert check(of_stream(answer.text), took).decode > 0
    without, _ = asked(engine, stream=True)
    assert ":phases" not in without.text


def test_nobody_else_is_told(engine: Running) -> None:
    body = {"model": "tiny", "prompt": "the order", "max_tokens": 2}
    plain = httpx.post(f"{engine.url}/v1/completions", json=body, timeout=DEADLINE_S)
    assert NAME not in plain.headers
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    assert ":phases" not in httpx.post(f"{engine.url}/v1/completions", json=body, timeout=DEADLINE_S).text


async def test_of_several_choices_the_first_that_begins_and_the_last_that_ends_count(tiny: Path) -> None:
    tokenizer = Tokenizer(tiny)
    choices = [
        Sequence(at, [1], Sampling(max_tokens=1), tokenizer=tokenizer, stops=(), arrived_ns=1000) for at in range(3)
    ]
    answer = Answer(choices)
    answer.submitted_ns = 1010
    assert phases_of_answer(answer, 2000) is None, "nothing came of it"
    for one, times in zip(choices, ((1050, 1200, 1300), (1040, 1100, 1150), (0, 0, 0)), strict=True):
        one.began_ns, one.first_ns, one.last_ns = times
    assert phases_of_answer(answer, 1305) == EnginePhases(10, 30, 60, 200, 5)
