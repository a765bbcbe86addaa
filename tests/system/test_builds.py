"""Builds on the whole installation: what every precision of the example costs and gains, each serving through the gateway; a model of DistilGPT2's shape from a folder to an answer."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.engine.convert.models import write_gpt2
from tests.system.program import penstock, run_module
from tests.system.starter import ROOT, Up, running
from tests.system.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.soak, pytest.mark.timeout(1800)]
EXAMPLE = ROOT / "examples" / "support_bot"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running(tmp_path_factory.mktemp("builds") / "penstock-data") as up:
        yield up


def slowly(up: Up, *arguments: str) -> dict[str, Any]:
    """As `penstock`, for what builds and measures."""
    return run_module(
        "penstock.cli",
        *arguments,
        "--url",
        up.control,
        "--key",
        up.secret("admin.key"),
        "--json",
        deadline_s=900,
    )


def at_work(up: Up, job: str) -> bool | None:
    """Whether the job's converter computes."""
    headers = {"authorization": f"Bearer {up.secret('admin.key')}"}
    steps = httpx.get(f"{up.control}/api/v1/builds/{job}", headers=headers, timeout=60).json()["steps"]
    return True if steps and "graph" in steps[-1]["step"] else None


def served(up: Up, path: str, body: dict[str, Any]) -> httpx.Response:
    """The first answer; its replicas may still be loading."""

    def look() -> httpx.Response | None:
        reply = ask(up, path, body)
        return reply if reply.status_code == 200 else None

    return until(look, 180)


def ask(up: Up, path: str, body: dict[str, Any]) -> httpx.Response:
    headers = {"authorization": f"Bearer {up.secret('demo.key')}"}
    return httpx.post(f"{up.gateway}{path}", json=body, headers=headers, timeout=120)


def test_every_precision_is_measured_and_serves(own: Up, tmp_path: Path) -> None:
    penstock(own, "suites", "add", str(EXAMPLE / "suites" / "questions.jsonl"), "support-questions")
    brought = slowly(own, "models", "evaluate", "support-bot:v1.1.0", "--suite", "support-questions")
    assert brought["state"] == "done"
    told = slowly(own, "models", "build", "support-bot:v1.1.0", "--suggest", "--usd-per-hour", "0.1")
    options = {one["precision"]: one for one in told["options"] if not one["relation"]}
    assert list(options) == ["fp32", "fp16", "int8", "int4"]
    assert not any(one["waits"] for one in options.values())
    assert [one["made"] for one in options.values()] == [True, True, False, True]
    for one in options.values():
        assert one["speed"]["low"] > 0
        assert one["usd_per_1000_answers"] > 0
        [quality] = [q for q in one["quality"] if q["measure"] == "right"]
        assert quality["low"] < quality["value"] < quality["high"]
    right = {name: next(q for q in one["quality"] if q["measure"] == "right") for name, one in options.items()}
    assert right["fp16"]["difference"] == pytest.approx(0, abs=0.01)
    assert right["int8"]["difference_low"] > -0.05
    documents = []
    for precision in options:
        name = f"bot-{precision}"
        documents += [
            {"kind": "Pool", "name": name, "spec": {"build": "support-bot:v1.1.0", "precision": precision}},
            {"kind": "Route", "name": name, "spec": {"to": [{"pool": name}]}},
        ]
    (tmp_path / "pools.yaml").write_text(yaml.safe_dump_all(documents))
    penstock(own, "apply", "-f", str(tmp_path / "pools.yaml"))
    for precision, option in options.items():
        chat = {
            "model": f"bot-{precision}",
            "messages": [{"role": "user", "content": "How do I track my order?"}],
            "max_tokens": 24,
        }
        reply = served(own, "/v1/chat/completions", chat)
        assert reply.json()["choices"][0]["message"]["content"].strip()
        assert reply.headers["x-penstock-digest"] == option["digest"]


def test_a_model_of_distilgpt2_s_shape_is_imported_built_and_served(own: Up, tmp_path: Path) -> None:
    folder = write_gpt2(tmp_path / "m", layers=6, width=768, heads=12, vocabulary=50257, context=1024)
    version = slowly(own, "models", "import", str(folder), "distilgpt2:v1.0.0")
    assert version["source"]["from"] == "m"
    job = penstock(own, "models", "build", "distilgpt2:v1.0.0", "--precision", "int8", "--no-measure", "--no-wait")
    until(lambda: at_work(own, job["id"]), 120, every_s=0.02)
    pid = json.loads((own.data / "run" / "engine-examiner.json").read_bytes())["pid"]
    os.kill(pid, signal.SIGKILL)  # its converter goes with it, and the next one begins again
    job = slowly(own, "models", "build", "distilgpt2:v1.0.0", "--precision", "int8", "--no-measure")
    assert job["state"] == "done"
    assert json.loads((own.data / "run" / "engine-examiner.json").read_bytes())["pid"] != pid
    assert not list((own.data / "building").iterdir())
    penstock(own, "promote", "distilgpt2:v1.0.0", "--to", "production", "--precision", "int8")
    body = {"model": "distilgpt2", "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
    reply = served(own, "/v1/completions", body)
    assert reply.json()["usage"]["completion_tokens"] == 8
    refused = ask(own, "/v1/chat/completions", {"model": "distilgpt2", "messages": [{"role": "user", "content": "Hi"}]})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "no_chat_template"
