"""A version's processing at work in a real engine: other steps, other answers, streams and whole ones alike."""

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.core.errors import Damaged
from tests.engine.conftest import DEADLINE_S, Running, running_engine

pytestmark = pytest.mark.engine
ASK = {"model": "tiny", "prompt": "the order", "max_tokens": 24, "temperature": 0, "ignore_eos": True}


def with_steps(tiny: Path, folder: Path, **steps: Any) -> Path:
    shutil.copytree(tiny, folder)
    (folder / "processing.json").write_text(json.dumps(steps))
    return folder


def ask(engine: Running, **fields: Any) -> httpx.Response:
    return httpx.post(f"{engine.url}/v1/completions", json={**ASK, **fields}, timeout=DEADLINE_S)


def text(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["text"])


def streamed(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    events = [line[6:] for line in reply.text.splitlines() if line.startswith("data: {")]
    return "".join(choice["text"] for event in events for choice in json.loads(event)["choices"])


def test_other_steps_give_other_answers_and_streams_the_same_ones(engine: Running, tiny: Path, tmp_path: Path) -> None:
    plain = text(ask(engine))
    letter = next(one for one in plain if one.isalpha())
    output = [{"do": "replace", "pattern": f"[{letter}]+", "to": "<\\0>"}, {"do": "template", "template": "[{text}]"}]
    wanted = "[" + "".join(f"<{run}>" if set(run) == {letter} else run for run in runs(plain, letter)) + "]"
    folder = with_steps(tiny, tmp_path / "m", input=[{"do": "trim"}], output=output)
    with running_engine(folder) as processed:
        reply = ask(processed)
        assert text(reply) == wanted
        assert reply.json()["usage"]["completion_tokens"] == 24
        assert text(ask(processed, prompt="  the order \n")) == wanted, "prompts are trimmed"
        assert streamed(ask(processed, stream=True)) == wanted
        two = ask(processed, n=2).json()["choices"]
        assert [one["text"] for one in two] == [wanted, wanted]
        for fields, param in (({"logprobs": 1}, "logprobs"), ({"prompt": [1, 2]}, "prompt")):
            refused = ask(processed, **fields)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def runs(told: str, letter: str) -> list[str]:
    """`told`, cut where runs of `letter` begin and end."""
    found = [""]
    for one in told:
        if found[-1] and (found[-1][-1] == letter) != (one == letter):
            found.append("")
        found[-1] += one
    return found


def test_what_needs_the_whole_answer_is_refused_for_streams_or_held(tiny: Path, tmp_path: Path) -> None:
    step = {"do": "extract", "pattern": "no such thing in any answer", "otherwise": "fail"}
    with running_engine(with_steps(tiny, tmp_path / "m", output=[step])) as processed:
        refused = ask(processed, stream=True)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "processing_needs_whole_answer")
        failed = ask(processed)
        assert (failed.status_code, failed.json()["error"]["code"]) == (502, "processing_failed")
    held = {"do": "extract", "pattern": "(?s)^.*$", "otherwise": "empty"}
    with running_engine(with_steps(tiny, tmp_path / "held", output=[held], stream="hold")) as processed:
        assert streamed(ask(processed, stream=True)) == text(ask(processed)) != ""


def test_a_damaged_file_stops_the_engine_with_its_path(tiny: Path, tmp_path: Path) -> None:
    folder = with_steps(tiny, tmp_path / "m", output=[{"do": "replace", "pattern": "("}])
    with pytest.raises(Damaged, match=r"processing\.json\.output\.0\.pattern"), running_engine(folder):
        pass
