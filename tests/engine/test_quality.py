"""What the engine tells of an answer's quality, against the log-probabilities that it tells itself."""

import json

import httpx
import pytest

from penstock.core.exchange import Quality
from penstock.engine.quality import Examination
from penstock.wire.quality import HEADER, quality_of
from tests.engine.conftest import Running

pytestmark = pytest.mark.engine
NAME = HEADER.decode()


def body(**more: object) -> dict[str, object]:
    return {"model": "tiny", "prompt": "the order", "max_tokens": 24, "seed": 6, "ignore_eos": True, **more}


def asked(engine: Running, patterns: str = "[]", **more: object) -> httpx.Response:
    return httpx.post(f"{engine.url}/v1/completions", json=body(**more), headers={NAME: patterns}, timeout=60)


def test_repeats_are_counted() -> None:
    one = Examination()
    one.feed([1, 2, 3, 1, 2, 3, 1], [-1.0] * 7)
    assert (one.trigrams(), one.scored, one.logprob) == ((5, 2), 7, -7.0)
    two = Examination()
    two.feed([1, 2], None)
    assert (two.trigrams(), two.scored) == ((0, 0), 0)


def test_a_document_has_it_in_its_head(engine: Running) -> None:
    plain = httpx.post(f"{engine.url}/v1/completions", json=body(logprobs=0), timeout=60)
    assert NAME not in plain.headers
    scores = plain.json()["choices"][0]["logprobs"]["token_logprobs"]
    answer = asked(engine)
    seen = quality_of(answer.headers[NAME].encode())
    assert seen is not None
    assert answer.json()["choices"][0]["logprobs"] is None
    assert answer.json()["choices"][0]["text"] == plain.json()["choices"][0]["text"]
    assert seen.scored == answer.json()["usage"]["completion_tokens"] == len(scores) == 24
    assert seen.logprob == pytest.approx(sum(scores), rel=1e-5)
    assert seen.trigrams == 22


def test_a_stream_has_it_with_its_usage(engine: Running) -> None:
    whole = quality_of(asked(engine).headers[NAME].encode())
    text = asked(engine, stream=True, stream_options={"include_usage": True}).text
    events = text.split("\n\n")
    told = [event for event in events if event.startswith(":quality ")]
    assert len(told) == 1
    line, data = told[0].split("\n")
    assert json.loads(data.removeprefix("data: "))["usage"]["completion_tokens"] == 24
    seen = quality_of(line.removeprefix(":quality ").encode())
    assert seen is not None and whole is not None
    assert (seen.scored, seen.trigrams, seen.repeated) == (whole.scored, whole.trigrams, whole.repeated)
    assert seen.logprob == pytest.approx(whole.logprob, rel=1e-5)
    assert "logprob" not in data


def test_choices_are_added_up_and_a_stop_string_ends_the_score(engine: Running) -> None:
    both = quality_of(asked(engine, n=2).headers[NAME].encode())
    assert both is not None
    assert (both.scored, both.trigrams) == (48, 44)
    text = str(asked(engine).json()["choices"][0]["text"])
    answer = asked(engine, stop=[text[-3:]])
    seen = quality_of(answer.headers[NAME].encode())
    assert seen is not None
    assert seen.scored == answer.json()["usage"]["completion_tokens"] <= 24


def test_a_refusal_is_known_by_its_pattern(engine: Running) -> None:
    def refused(patterns: str) -> Quality:
        seen = quality_of(asked(engine, patterns).headers[NAME].encode())
        assert seen is not None
        return seen

    assert refused('["(?s)^.+$"]').refused
    assert not refused('["no such words anywhere"]').refused
    assert asked(engine, "no list").status_code == 400
    assert asked(engine, '["("]').json()["error"]["code"] == "bad_pattern"


def test_its_metrics_are_the_same_in_both_formats(engine: Running) -> None:
    asked(engine)
    plain = httpx.get(f"{engine.url}/metrics", timeout=60)
    rich = httpx.get(f"{engine.url}/metrics", headers={"accept": "application/openmetrics-text"}, timeout=60)
    assert plain.headers["content-type"].startswith("text/plain")
    assert rich.headers["content-type"].startswith("application/openmetrics-text")
    assert rich.text.endswith("# EOF\n")

    def names(text: str) -> set[str]:
        lines = (line for line in text.splitlines() if line and not line.startswith("#"))
        return {line.split("{")[0].split(" ")[0] for line in lines}

    assert names(plain.text) == names(rich.text)
    assert "vllm:generation_tokens_total" in names(rich.text)
