"""The semantic cache over the whole of it: the shipped embedder in an engine of its own, a route by `penstock apply`, two tenants."""

import json
from pathlib import Path

import httpx
import pytest

from tests.system.program import penstock
from tests.system.starter import Up
from tests.system.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.timeout(240)]

ROUTE = {
    "kind": "Route",
    "name": "answers-again",
    "spec": {
        "to": [{"model": "support-bot"}],
        "cache": {
            "mode": "semantic",
            "ttl_s": 600,
            "semantic": {"model": "support-embedder", "threshold": 0.85, "timeout_s": 10},
        },
    },
}
FIRST, SAME, OTHER = (
    "Where is my order 4471902?",
    "hello, where's my purchase 4471902 please",
    "Where is my order 4471903?",
)


def ask(client: httpx.Client, text: str) -> httpx.Response:
    messages = [{"role": "user", "content": text}]
    body = {"model": "answers-again", "temperature": 0, "max_tokens": 60, "messages": messages}
    reply = client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    return reply


def test_answers_are_given_again_to_their_tenant(up: Up, tmp_path: Path) -> None:
    (tmp_path / "route.json").write_text(json.dumps(ROUTE))
    penstock(up, "apply", "-f", str(tmp_path / "route.json"))
    penstock(up, "tenants", "create", "again")
    key = penstock(up, "keys", "create", "--tenant", "again")["key"]

    def client(secret: str) -> httpx.Client:
        """One connection: what a worker keeps, it alone has."""
        limits = httpx.Limits(max_connections=1)
        return httpx.Client(
            base_url=up.gateway, headers={"authorization": f"Bearer {secret}"}, timeout=60, limits=limits
        )

    with client(up.secret("demo.key")) as mine, client(key) as theirs:
        for one in (mine, theirs):
            until(lambda one=one: "answers-again" in one.get("/v1/models").text or None, 30)  # type: ignore[misc]
        first = ask(mine, FIRST)
        assert (
            first.headers["x-penstock-cache"] == "miss"
            and "4471902" in first.json()["choices"][0]["message"]["content"]
        )
        again = ask(mine, SAME)
        assert again.headers["x-penstock-cache"] == "semantic" and again.json() == first.json()
        assert float(again.headers["x-penstock-similarity"]) >= 0.85
        assert again.headers["x-penstock-version"] == "support-bot:v1.1.0"
        assert ask(mine, OTHER).headers["x-penstock-cache"] == "miss"
        assert ask(mine, FIRST).headers["x-penstock-cache"] == "hit"
        assert [ask(theirs, text).headers["x-penstock-cache"] for text in (FIRST, SAME)] == ["miss", "semantic"]
        assert ask(theirs, SAME).json()["id"] != first.json()["id"]
