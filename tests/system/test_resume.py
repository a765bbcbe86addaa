"""One of two replicas is killed in the middle of many streams: with `resume` all of them end, every byte once."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from penstock.core.exchange import Exchange
from penstock.engine.text import Tokenizer
from penstock.journal.inspect import cat
from penstock.supervisor.records import Records
from tests.system.between import Between, between
from tests.system.starter import ROOT, Up, running
from tests.system.traffic import Traffic
from tests.system.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.timeout(600)]

MODEL = ROOT / "examples/support_bot/models/support-bot-v1.0.0/openvino-int8"
POOL = "support-bot-v1.0.0-int8"


class Told(msgspec.Struct, kw_only=True):
    """One stream as its client saw it."""

    text: str = ""
    ids: set[str] = set()
    finishes: list[str] = []
    events: int = 0
    done: bool = False
    error: str = ""
    status: int = 0
    usage: dict[str, int] = {}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Up]:
    with running(tmp_path / "d") as up:
        yield up


def apply(up: Up, path: str, name: str, **spec: Any) -> None:
    reply = httpx.post(
        f"{up.control}/api/v1/{path}",
        headers={"authorization": f"Bearer {up.secret('admin.key')}"},
        json={"name": name, "spec": spec},
        timeout=30,
    )
    assert reply.status_code == 201, reply.text


def question(number: int, tokens: int) -> dict[str, Any]:
    """A greedy stream of as many tokens as the model has to say."""
    text = f"Where is my order {4000000 + 7919 * number}? It should have come {number % 9 + 2} days ago."
    return {
        "model": "watched",
        "messages": [{"role": "user", "content": text}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "max_tokens": tokens,
    }


def stream(up: Up, body: dict[str, Any], told: Told) -> Told:
    headers = {"authorization": f"Bearer {up.secret('demo.key')}"}
    try:
        with httpx.stream(
            "POST", f"{up.gateway}/v1/chat/completions", headers=headers, json=body, timeout=120
        ) as reply:
            told.status = reply.status_code
            for line in reply.iter_lines():
                assert not line.startswith(":"), line
                if line == "data: [DONE]":
                    told.done = True
                elif line:
                    _note(json.loads(line.removeprefix("data: ")), told)
    except httpx.HTTPError as error:
        told.error = repr(error)
    return told


def _note(event: dict[str, Any], told: Told) -> None:
    told.events += 1
    told.error = told.error or json.dumps(event.get("error", ""))[1:-1]
    told.ids.add(event.get("id", ""))
    told.usage = event.get("usage") or told.usage
    for choice in event.get("choices", ()):
        told.text += choice["delta"].get("content") or ""
        if choice["finish_reason"]:
            told.finishes.append(choice["finish_reason"])


def forced(engine: str, body: dict[str, Any]) -> str:
    """What an engine says after the beginning that `body` forces upon it."""
    reply = httpx.post(
        f"{engine}/v1/chat/completions", headers={"x-penstock-resume": "continue"}, json=body, timeout=120
    )
    assert reply.status_code == 200, reply.text
    told = Told()
    for line in reply.text.splitlines():
        if line.startswith("data: {"):
            _note(json.loads(line.removeprefix("data: ")), told)
    return told.text


def test_streams_outlive_their_replica(own: Up) -> None:
    outlive(own, streams=12, tokens=200)


@pytest.mark.soak
def test_fifty_streams_outlive_their_replica(own: Up) -> None:
    outlive(own, streams=50, tokens=200)


def outlive(up: Up, *, streams: int, tokens: int) -> None:
    apply(up, "pools", "pair", build="support-bot:v1.0.0", replicas=2)
    records = Records(up.data / "run")

    def engines() -> list[Any] | None:
        found = [r for r in records.all() if r.spec.kind == "engine" and r.spec.name.startswith(f"engine-{POOL}-")]
        return sorted(found, key=lambda r: r.spec.name) if len(found) == 2 and all(map(ready, found)) else None

    def ready(record: Any) -> bool:
        try:
            return httpx.get(f"{record.url}/readyz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    dying, surviving = until(engines, 120)
    with between([dying.port, surviving.port]) as wires:
        urls = [f"http://127.0.0.1:{wire.port}" for wire in wires]
        apply(up, "pools", "watched", adopt=urls, dialect="penstock", model="support-bot", affinity="off")
        apply(up, "routes", "watched", to=[{"pool": "watched"}], resume=True)
        until(lambda: stream(up, question(0, 4), Told()).done or None, 30)
        bodies = [question(number, tokens) for number in range(streams)]
        with ThreadPoolExecutor(streams) as pool:
            quiet = list(pool.map(lambda body: stream(up, body, Told()), bodies))
        assert all(told.done for told in quiet)
        for wire in wires:
            wire.asked.clear()

        wires[0].budget = 700  # every stream there is cut at another byte
        told = [Told() for _ in bodies]
        with Traffic(up.gateway, up.secret("demo.key"), model="watched", clients=2) as others:
            threads = [
                threading.Thread(target=stream, args=(up, b, t), daemon=True) for b, t in zip(bodies, told, strict=True)
            ]
            for thread in threads:
                thread.start()

            def in_the_middle() -> bool:
                held = wires[0].held
                return held >= streams // 3 or held + sum(t.done for t in told) >= streams

            until(lambda: in_the_middle() or None, 60, 0.005)
            os.kill(dying.pid, signal.SIGKILL)
            killed = time.monotonic()
            for thread in threads:
                thread.join(120)
            until(lambda: sum(seen.began > killed for seen in others.seen) >= 20 or None, 60)
        check(up, bodies, told, quiet, wires[1], surviving.url)
        assert not others.failed(), others.failed()
        after = sum(seen.began > killed for seen in others.seen)
        print(f"{after} new requests after the kill: none failed")


def check(
    up: Up, bodies: list[dict[str, Any]], told: list[Told], quiet: list[Told], survivor: Between, engine: str
) -> None:
    assert all(t.done and not t.error for t in told), [t.error for t in told if t.error or not t.done]
    assert all(len(t.ids) == 1 and len(t.finishes) == 1 for t in told)
    asked = {json.dumps(b["messages"]): b for head, b in survivor.asked if b"x-penstock-resume: continue" in head}
    assert asked, "nothing was cut: the replica was killed too early or too late"
    tokenizer = Tokenizer(MODEL)
    resumed = [
        (asked[key], t) for b, t in zip(bodies, told, strict=True) if (key := json.dumps(b["messages"])) in asked
    ]
    with ThreadPoolExecutor(8) as pool:
        rests = list(pool.map(lambda pair: forced(engine, pair[0]), resumed))
    for (body, seen), rest in zip(resumed, rests, strict=True):
        so_far = body["penstock_continue"]
        words = tokenizer.detokenizer()
        said = words.feed(so_far["tokens"]) + words.finish()
        sent = so_far["sent"]
        assert seen.text[:sent] == said[:sent]
        # Floating-point sums depend on what else is computed: where two words are all but equally likely, once more alone.
        assert seen.text[sent:] == rest or seen.text[sent:] == forced(engine, body)
    same = sum(
        t.text == q.text and t.usage == q.usage and t.finishes == q.finishes for t, q in zip(told, quiet, strict=True)
    )
    lengths = sorted(len(body["penstock_continue"]["tokens"]) for body, _ in resumed)
    print(
        f"{len(told)} streams: all ended; {len(resumed)} resumed, after {lengths[0]} to {lengths[-1]} tokens; "
        f"{same} of {len(told)} ({same / len(told):.0%}) equal to an undisturbed run"
    )
    journalled = until(lambda: told_of(up, len(resumed)), 10)
    assert journalled == len(resumed)


def told_of(up: Up, least: int) -> int | None:
    """How many records tell of a resumed stream that ended well, once there are enough."""
    found = [r for _, _, r in cat(up.data / "journal") if isinstance(r, Exchange) and r.resumed and r.outcome == "ok"]
    return len(found) if len(found) >= least else None
