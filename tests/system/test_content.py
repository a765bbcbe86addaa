"""Content from a client's words to the reader's eyes and to oblivion, through real processes: two workers, shipper, control, commands."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.core.settings import Settings
from penstock.journal.keyring import open_keys
from tests.ports import free_ports
from tests.system.program import penstock
from tests.system.starter import ROOT, Up, command

pytestmark = pytest.mark.system

RESOURCES = """
kind: Policy
name: kept
spec: {capture: masked, audit: strict}
---
kind: Tenant
name: keeper
spec: {policy: kept}
"""


def ask(up: Up, key: str, text: str, *, user: str, stream: bool = False) -> tuple[str, str]:
    """The id of the request, and what was answered."""
    body = {
        "model": "support-bot", "messages": [{"role": "user", "content": text}], "user": user, "max_tokens": 40,
        "temperature": 0, "stream": stream,
    }  # fmt: skip
    headers = {"authorization": f"Bearer {key}"}
    deadline = time.monotonic() + 30
    while True:
        reply = httpx.post(f"{up.gateway}/v1/chat/completions", json=body, headers=headers, timeout=60)
        if reply.status_code != 401 or time.monotonic() > deadline:  # the key has not come there yet
            break
        time.sleep(0.05)
    assert reply.status_code == 200, reply.text
    if not stream:
        return reply.headers["x-penstock-request-id"], reply.json()["choices"][0]["message"]["content"]
    events = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]
    said = "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"])
    return reply.headers["x-penstock-request-id"], said


def opened(up: Up, request: str) -> dict[str, Any]:
    """The request's content as the API tells it, once the request is in the index."""
    deadline = time.monotonic() + 60
    headers = {"authorization": f"Bearer {up.secret('admin.key')}"}
    while True:
        reply = httpx.get(f"{up.control}/api/v1/requests/{request}/content", headers=headers, timeout=30)
        if reply.status_code != 404:
            told: dict[str, Any] = reply.raise_for_status().json()
            return told
        assert time.monotonic() < deadline
        time.sleep(0.05)


def journal(up: Up, *words: str) -> str:
    argv = [sys.executable, "-P", "-m", "penstock.cli", "journal", *words, "--data", str(up.data), "--url", up.control]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kept_read_and_forgotten(up: Up, tmp_path: Path) -> None:
    file = tmp_path / "kept.yaml"
    file.write_text(RESOURCES)
    penstock(up, "apply", "-f", str(file))
    key = penstock(up, "keys", "create", "--tenant", "keeper")["key"]
    asked = "My address is jane.doe@example.com, card 4111 1111 1111 1111. How long does delivery take?"
    masked = "My address is [email], card [payment_card]. How long does delivery take?"
    first = [ask(up, key, asked, user="jane", stream=number % 2 == 1) for number in range(4)]  # of either worker
    other, _ = ask(up, key, "How do I return a chair?", user="joan")
    for request, answer in first:
        said = opened(up, request)
        assert said["state"] == "readable"
        assert said["messages"] == [{"role": "user", "text": masked}]
        assert said["replies"] == [{"index": 0, "field": "content", "text": answer}]
    assert penstock(up, "explain", first[0][0], "--content")["said"] == opened(up, first[0][0])
    written = b"".join(path.read_bytes() for path in (up.data / "journal").rglob("*.pjl"))
    for secret in (b"jane.doe", b"4111 1111", b"How long does delivery", b"return a chair"):
        assert secret not in written
        for path in up.data.rglob("*"):
            if (
                path.is_file()
                and path.stat().st_size < 50_000_000
                and path.suffix in {".db", ".db-wal", ".log", ".parquet", ".json"}
            ):
                assert secret not in path.read_bytes(), path

    told = [json.loads(line)["record"] for line in journal(up, "cat", "--content").splitlines()]
    contents = {one["id"]: one["content"] for one in told if (one.get("content") or {}).get("state") == "readable"}
    assert contents[other]["messages"] == [{"role": "user", "text": "How do I return a chair?"}]
    assert {request for request, _ in first} <= set(contents)
    assert "jane.doe" not in journal(up, "cat")
    verified = json.loads(journal(up, "verify", "--content", "--json"))["workers"]
    assert all(one["sound"] for one in verified)
    assert sum(one["contents"].get("readable", 0) for one in verified) >= 5

    before = penstock(up, "subjects", "status", "--data", str(up.data))
    penstock(up, "subjects", "rotate", "--data", str(up.data))  # while all of it runs
    after = penstock(up, "subjects", "status", "--data", str(up.data))
    assert after["master"] != before["master"]
    assert after["living"] == before["living"]
    late, _ = ask(up, key, "Another person's question", user="jim")
    assert opened(up, late)["state"] == "readable"

    gone = penstock(up, "subjects", "forget", "--tenant", "keeper", "--user", "jane", "--yes")
    assert gone["keys"] >= 1
    for request, _ in first:
        said = opened(up, request)
        assert (said["state"], said["messages"], said["destroyed_at"]) == ("destroyed", [], gone["at"])
    assert [opened(up, request)["state"] for request in (other, late)] == ["readable", "readable"]
    again = [ask(up, key, f"question {number}", user="jane")[0] for number in range(4)]  # workers that had the old key
    for number, request in enumerate(again):
        assert opened(up, request)["messages"] == [{"role": "user", "text": f"question {number}"}]
    verified = json.loads(journal(up, "verify", "--content", "--json"))["workers"]
    assert sum(one["contents"].get("destroyed", 0) for one in verified) == 4
    assert not any(one["contents"].get("lost") for one in verified)

    headers = {"authorization": f"Bearer {up.secret('admin.key')}"}
    trail = httpx.get(f"{up.control}/api/v1/audit", headers=headers, timeout=30).json()
    assert {"content.read", "subject.forget"} <= {event["action"] for event in trail}
    assert "jane" not in json.dumps(trail)


def test_nothing_starts_with_the_wrong_master_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    data.mkdir()
    open_keys(Settings(data=str(data))).close()
    monkeypatch.setenv("PENSTOCK_KEYS_MASTER", "ab" * 32)
    one, other = free_ports(2)
    program = [sys.executable, "-P", "-m", "penstock.cli"]
    for argv in (
        command(data, "--empty"),
        [*program, "gateway", "--data", str(data), "--gateway-port", str(one), "--worker", "0"],
        [*program, "control", "--data", str(data), "--control-port", str(other), "--empty"],
    ):
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
        assert done.returncode == 1
        assert "wrapped by the master key with the mark" in done.stderr
        assert "PENSTOCK_KEYS_MASTER" in done.stderr
        assert "abab" not in done.stderr
