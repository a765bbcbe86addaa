"""The same installation over PostgreSQL: registered, promoted, rolled back, answered and counted."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.postgres import PostgresServer
from tests.system.program import penstock
from tests.system.starter import running
from tests.system.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.timeout(300)]


def test_control_keeps_everything_in_postgresql(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_CONTROL_DATABASE", asyncio.run(postgres.fresh_database()))
    with running(tmp_path / "d") as up:
        assert not (up.data / "penstock.db").exists()
        assert penstock(up, "promote", "support-bot:v1.0.0", "--to", "production")["state"] == "live"
        assert penstock(up, "rollback", "support-bot", "--in", "production")["label"] == "v1.1.0"
        reply = httpx.post(
            f"{up.gateway}/v1/chat/completions",
            headers={"authorization": f"Bearer {up.secret('demo.key')}"},
            json={"model": "support-bot", "messages": [{"role": "user", "content": "Where is my order 4471902?"}]},
            timeout=60,
        )
        assert reply.headers["x-penstock-version"] == "support-bot:v1.1.0"
        request = reply.headers["x-penstock-request-id"]

        def ingested() -> bool | None:
            told = subprocess.run(
                [
                    sys.executable, "-P", "-m", "penstock.cli", "explain", request, "--data", str(up.data), "--json",
                ],
                capture_output=True, check=False,
            )  # fmt: skip
            return True if told.returncode == 0 and "source" not in json.loads(told.stdout) else None

        until(ingested, 60, 0.5)
