"""Control killed again and again while a pipeline runs and a webhook is told: one promotion of each, every event told, in order."""

import base64
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.supervisor.records import Records
from tests.system.program import penstock
from tests.system.starter import ROOT, Up, running
from tests.system.test_canary import call
from tests.system.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.soak, pytest.mark.timeout(900)]
KILLS = 20
SEED = 38
GATES = {
    "smoke": {"prompts": ["Hello", "Where is order 4471902?"]},
    "suites": [{"suite": "support-safety", "margin": 0.5}],
}


class Flaky(BaseHTTPRequestHandler):
    """A receiver that refuses one message of three."""

    got: list[tuple[int, str]]
    draw: random.Random

    def do_POST(self) -> None:
        told = json.loads(self.rfile.read(int(self.headers["content-length"])))
        fails = self.draw.random() < 0.33
        if not fails:
            self.got.append((told["data"]["sequence"], told["type"]))
        self.send_response(503 if fails else 204)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[tuple[int, str]]]]:
    got: list[tuple[int, str]] = []
    handler = type("Handler", (Flaky,), {"got": got, "draw": random.Random(SEED)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", got
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Up]:
    monkeypatch.setenv("PENSTOCK_WEBHOOKS_ALLOW_NETWORKS", "127.0.0.1")
    with running(tmp_path / "penstock-data") as up:
        yield up


def pid_of_control(up: Up) -> int:
    record = Records(up.data / "run").read("control")
    assert record is not None
    return record.pid


def test_one_promotion_and_every_event_whatever_is_killed(
    own: Up, receiver: tuple[str, list[tuple[int, str]]], tmp_path: Path
) -> None:
    url, got = receiver
    secrets = own.data / "secrets"
    secrets.mkdir()
    (secrets / "deploys").write_text("whsec_" + base64.b64encode(bytes(32)).decode())
    penstock(own, "suites", "add", str(ROOT / "examples/support_bot/suites/safety.jsonl"), "support-safety")
    documents = [{"kind": "Environment", "name": name, "spec": {"gates": GATES}} for name in ("dev", "staging")]
    (tmp_path / "gates.yaml").write_text(yaml.safe_dump_all(documents))
    penstock(own, "apply", "-f", str(tmp_path / "gates.yaml"))
    penstock(own, "webhooks", "create", "deploys", "--to", url, "--secret", "deploys", "--model", "support-bot")
    folder = str(ROOT / "examples/support_bot/models/support-bot-v1.0.0")
    begun = penstock(own, "pipeline", "run", folder, "support-bot:v1.2.0", "--through", "dev,staging", "--no-wait")
    draw = random.Random(SEED)
    for _ in range(KILLS):
        before = pid_of_control(own)
        os.kill(before, signal.SIGKILL)
        until(lambda old=before: None if pid_of_control(own) == old else True, 60)  # type: ignore[misc]
        call(own, "GET", "/me")
        time.sleep(draw.uniform(0.0, 1.0))  # what is under way is cut anywhere

    def has_ended() -> dict[str, Any] | None:
        told: dict[str, Any] = call(own, "GET", f"/pipelines/{begun['id']}")
        return None if told["state"] == "running" else told

    ended = until(has_ended, 300)
    assert ended["state"] == "done", ended
    revisions = call(own, "GET", "/models/support-bot/history")
    mine = [(one["environment"], one["action"]) for one in revisions if one["label"] == "v1.2.0"]
    assert sorted(mine) == [("dev", "promote"), ("staging", "promote")]
    evaluations = [one for one in call(own, "GET", "/evaluations?label=v1.2.0") if one["kind"] != "scan"]
    assert sorted(one["kind"] for one in evaluations) == ["smoke", "suite"]
    audit = [one for one in call(own, "GET", "/audit?limit=1000") if one["action"].startswith("pipeline.")]
    assert sum(one["action"] == "pipeline.done" for one in audit) == 1
    until(lambda: call(own, "GET", "/webhooks/deploys/standing")["waiting"] == 0 or None, 180)
    first = list(dict.fromkeys(sequence for sequence, _ in got))
    assert first == sorted(first)  # in order, whatever was sent again
    kinds = [kind for _, kind in dict(got).items()]
    assert kinds.count("pipeline.done") == 1
    assert kinds.count("pipeline.step") == 7
    assert len(first) == len(call(own, "GET", "/webhooks/deploys/deliveries?limit=1000"))
