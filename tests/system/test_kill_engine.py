"""The engine's two processes are killed while the real model answers: it is back, and nobody is told that half an answer is whole."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from penstock.core.exchange import Exchange
from penstock.journal.inspect import cat
from penstock.supervisor.procfs import PROC
from penstock.supervisor.records import Records
from tests.system.starter import Up, running
from tests.system.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.timeout(300)]
ASKED = {"model": "support-bot", "messages": [{"role": "user", "content": "Where is my order 4471902?"}]}
CONTENT = '"delta":{"content"'
BACK_S = 15.0  # on two cores that are busy; 5 s is promised where they are not


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running(tmp_path_factory.mktemp("kill-engine") / "d") as up:
        yield up


def ask(up: Up, **more: object) -> httpx.Response:
    return httpx.post(
        f"{up.gateway}/v1/chat/completions",
        headers={"authorization": f"Bearer {up.secret('demo.key')}"},
        json={**ASKED, **more},
        timeout=60,
    )


def streamed(up: Up, begun: threading.Event) -> tuple[str, str]:
    """The id of one streamed request, and all that came of its long answer; `begun` is set while it comes."""
    request, text = "", ""
    body = {**ASKED, "stream": True, "max_tokens": 300, "ignore_eos": True}
    headers = {"authorization": f"Bearer {up.secret('demo.key')}"}
    try:
        with httpx.stream("POST", f"{up.gateway}/v1/chat/completions", headers=headers, json=body, timeout=60) as reply:
            request = reply.headers["x-penstock-request-id"]
            for piece in reply.iter_text():
                text += piece
                if CONTENT in text:
                    begun.set()
    except httpx.RemoteProtocolError:
        pass  # how a stream ends that is not whole
    return request, text


def serving(up: Up) -> str:
    """The run record's name of the engine that answers now."""
    version = ask(up).headers["x-penstock-version"].replace(":", "-")
    names = [record.spec.name for record in Records(up.data / "run").all() if record.spec.kind == "engine"]
    return next(name for name in names if version in name)


def children(pid: int) -> list[int]:
    return [int(word) for word in (PROC / str(pid) / "task" / str(pid) / "children").read_text().split()]


@pytest.mark.parametrize("part", ["server", "worker"])
def test_a_killed_engine_is_back_and_cuts_are_told(own: Up, part: str) -> None:
    name = serving(own)
    stop, middle = threading.Event(), threading.Event()
    whole: list[str] = []
    cut: list[tuple[str, str]] = []
    killed: list[int] = []

    def stream() -> None:
        while not stop.is_set():
            request, text = streamed(own, middle)
            if "[DONE]" in text:
                whole.append(request)
            else:
                cut.append((request, text))
                stop.wait(0.1)

    threads = [threading.Thread(target=stream, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(whole) > 4 or None, 60)
    took: list[float] = []
    while not any(CONTENT in text for _, text in cut):  # a kill may fall between two streams
        assert len(took) < 4
        record = Records(own.data / "run").read(name)
        assert record is not None
        workers = children(record.pid)
        assert workers, "the engine computes in a process of its own"
        killed += workers
        middle.clear()
        assert middle.wait(60)
        begun, before = time.monotonic(), len(cut)
        os.kill(record.pid if part == "server" else workers[-1], signal.SIGKILL)
        until(lambda before=before: True if len(cut) > before else None, 30, 0.01)  # type: ignore[misc]
        so_far = len(whole)
        until(lambda so_far=so_far: len(whole) > so_far + 4 or None, 90, 0.02)  # type: ignore[misc]
        took.append(time.monotonic() - begun)
    stop.set()
    for thread in threads:
        thread.join(60)
    assert min(took) < BACK_S, took
    assert all('"error"' in text for _, text in cut), cut
    assert ask(own).status_code == 200
    records = [r for _, _, r in cat(own.data / "journal") if isinstance(r, Exchange)]
    outcomes = {r.id: r.outcome for r in records}
    assert len(outcomes) == len(records), "each request is there once"
    assert {outcomes[request] for request in whole} == {"ok"}
    # Streams that had begun; the others never had an answer.
    assert {outcomes[request] for request, text in cut if CONTENT in text} == {"crashed"}
    assert {outcomes[request] for request, _ in cut if request} <= {"crashed", "error", "refused"}
    left = [pid for pid in killed if (PROC / str(pid)).exists()]
    until(lambda: True if not [p for p in left if (PROC / str(p)).exists()] else None, 20)
