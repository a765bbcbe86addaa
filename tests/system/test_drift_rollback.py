"""A version at all of the traffic degrades: other weights under its name. Drift finds it, Prometheus and Alertmanager tell control, and control goes back."""

import itertools
import json
import os
import shutil
import signal
import threading
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.support_bot.generator import conversations, open_corpus
from penstock.supervisor.records import Records
from tests.system.monitors import Monitors, monitors
from tests.system.program import penstock
from tests.system.starter import ROOT, Up, running
from tests.system.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.timeout(600)]
BEFORE = 220  # questions that the version answers as itself
WITHIN = 500  # requests after the swap
CLIENTS = 12
COOL_DOWN_S = 1.0


class Crowd:
    """Asks questions of the example's corpus, one after the other by several clients, until it is told to stop."""

    def __init__(self, up: Up) -> None:
        self._headers = {"authorization": f"Bearer {up.secret('demo.key')}"}
        self._url = up.gateway
        self._questions = conversations(open_corpus(), seed=40)
        self._lock = threading.Lock()
        self.asked = 0

    def _next(self, most: int) -> list[dict[str, str]] | None:
        with self._lock:
            if self.asked >= most:
                return None
            self.asked += 1
            return next(self._questions).messages()[:-1]

    def ask(self, count: int, stop: threading.Event | None = None) -> int:
        """Ask `count` questions, or fewer if `stop` is set meanwhile; how many were answered."""
        self.asked, answered = 0, itertools.count()

        def client() -> None:
            with httpx.Client(base_url=self._url, headers=self._headers, timeout=60) as http:
                while (stop is None or not stop.is_set()) and (messages := self._next(count)) is not None:
                    body = {"model": "support-bot", "messages": messages, "max_tokens": 80, "temperature": 0}
                    if http.post("/v1/chat/completions", json=body).status_code == 200:
                        next(answered)

        threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return next(answered)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """An installation whose live version was promoted over an earlier one.

    Its engines do not check what they load, as somebody would have to bring about who exchanges weights: otherwise they refuse it (`test_provenance.py`).
    """
    unchecked = tmp_path_factory.mktemp("unchecked")
    (unchecked / "sitecustomize.py").write_text(
        "from penstock.engine import provenance\nprovenance.verify_build = lambda *_, expected=None: expected\n"
    )
    data = tmp_path_factory.mktemp("drift") / "penstock-data"
    with running(data, "--workers", "2", first=unchecked) as up:
        penstock(up, "promote", "support-bot:v1.0.0", "--to", "production")
        told = penstock(up, "promote", "support-bot:v1.1.0", "--to", "production")
        assert told["state"] == "live"
        yield up


@pytest.fixture(scope="module")
def watched(own: Up, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitors]:
    with monitors(own, tmp_path_factory.mktemp("monitors")) as made:
        yield made


def swap_weights(up: Up) -> None:
    """The engine of v1.1.0 starts again, with the weights of v1.0.0 in its folder."""
    records = Records(up.data / "run")
    record = next(one for one in records.all() if one.spec.kind == "engine" and "v1.1.0" in one.spec.name)
    folder = next(
        folder
        for folder in (up.data / "builds").iterdir()
        if folder.is_dir()
        and (folder / "openvino_model.bin").stat().st_size
        == (ROOT / "examples/support_bot/models/support-bot-v1.1.0/openvino-int8/openvino_model.bin").stat().st_size
    )
    for file in (ROOT / "examples/support_bot/models/support-bot-v1.0.0/openvino-int8").iterdir():
        shutil.copyfile(file, folder / file.name)
    os.kill(record.pid, signal.SIGKILL)

    def again() -> bool | None:
        now = records.read(record.spec.name)
        return True if now is not None and now.pid != record.pid else None

    until(again, 60)
    body = {"model": "support-bot", "messages": [{"role": "user", "content": "Where is my order 4471902?"}]}
    headers = {"authorization": f"Bearer {up.secret('demo.key')}"}
    until(
        lambda: (
            True
            if httpx.post(f"{up.gateway}/v1/chat/completions", json=body, headers=headers, timeout=60).status_code
            == 200
            else None
        ),
        60,
    )


def told(up: Up, path: str) -> Any:
    """What control's API answers."""
    reply = httpx.get(
        f"{up.control}/api/v1{path}", headers={"authorization": f"Bearer {up.secret('admin.key')}"}, timeout=60
    )
    assert reply.status_code == 200, reply.text
    return reply.json()


def drift(up: Up) -> dict[str, Any]:
    """What is watched of v1.1.0."""
    return next(one for one in told(up, "/drift?model=support-bot:v1.1.0&ended=true") if not one["arm"])


def seen(up: Up, signal_: str) -> dict[str, Any]:
    return next(one for one in drift(up)["signals"] if one["signal"] == signal_ and one["against"] == "itself")


def history(up: Up) -> list[dict[str, Any]]:
    revisions: list[dict[str, Any]] = told(up, "/models/support-bot/history?environment=production")
    return revisions


def actions(up: Up) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = told(up, "/alerts/actions")
    return found


def tell(watched: Monitors, **labels: str) -> None:
    """An alert that begins now, told to Alertmanager as Prometheus tells it."""
    alert = {
        "labels": {"alertname": "PenstockOutputDrift", "severity": "ticket", **labels},
        "annotations": {"summary": "The answers are not what they were."},
        "startsAt": datetime.now(UTC).isoformat(),
    }
    request = urllib.request.Request(
        f"{watched.alertmanager}/api/v2/alerts",
        data=json.dumps([alert]).encode(),
        headers={"content-type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=30).close()


def test_other_weights_under_the_same_name_are_found_and_gone_back_from_once(
    own: Up, watched: Monitors, tmp_path: Path
) -> None:
    document = tmp_path / "production.yaml"
    policy = {"alerts": ["PenstockOutputDrift"], "cool_down_s": COOL_DOWN_S}
    document.write_text(json.dumps({"kind": "Environment", "name": "production", "spec": {"auto_rollback": policy}}))
    penstock(own, "apply", "-f", str(document))
    crowd = Crowd(own)
    assert crowd.ask(BEFORE) == BEFORE
    until(lambda: True if seen(own, "perplexity")["state"] == "watching" else None, 60, every_s=0.5)
    assert drift(own)["state"] != "alarm"

    swap_weights(own)
    found = threading.Event()

    def look() -> None:
        until(lambda: True if drift(own)["state"] == "alarm" or len(history(own)) > 3 else None, 300, every_s=0.2)
        found.set()

    looking = threading.Thread(target=look)
    looking.start()
    crowd.ask(WITHIN, found)
    looking.join()
    perplexity = seen(own, "perplexity")
    assert perplexity["alarm"] is not None
    assert perplexity["alarm"]["after"] <= WITHIN + BEFORE

    def rolled_back() -> dict[str, Any] | None:
        newest = history(own)[0]
        return newest if newest["action"] == "rollback" and newest["state"] == "live" else None

    back = until(rolled_back, 120, every_s=0.5)
    assert (back["label"], back["principal"]) == ("v1.0.0", "penstock")
    assert "PenstockOutputDrift (alert " in back["reason"]
    assert "The answers of support-bot:v1.1.0 are not what they were" in back["reason"]
    assert [one["label"] for one in penstock(own, "blocks", "list")["blocks"]] == ["v1.1.0"]
    (action,) = penstock(own, "alerts", "actions", "--model", "support-bot")["actions"]
    assert (action["action"], action["revision"]) == ("rollback", back["id"])

    # The cool-down is over by now: what fires of the version that was gone back to does nothing any more.
    tell(watched, model="support-bot:v1.0.0", signal="perplexity")
    until(lambda: True if len(actions(own)) == 2 else None, 60, every_s=0.5)
    newest = actions(own)[0]
    assert newest["at"] - action["at"] > COOL_DOWN_S
    assert (newest["action"], newest["label"]) == ("none", "v1.0.0")
    assert [one["action"] for one in history(own)].count("rollback") == 1
    until(lambda: True if watched.samples('sum(ALERTS{alertname="PenstockOutputDrift"})') == [] else None, 60)
