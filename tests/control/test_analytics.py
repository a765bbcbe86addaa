"""Requests are found in the index; SQL over the analytical store, as each caller may see it; how long things are kept."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from sqlalchemy import insert

from penstock.control.api.analytics import analytics_router, retention_router
from penstock.control.content import forget
from penstock.control.errors import install_error_handlers
from penstock.control.figures import explorer, requests_search
from penstock.control.figures.statements import Statements
from penstock.core.exchange import Phases
from penstock.core.settings import Settings
from penstock.journal.analytics.store import AnalyticsStore
from penstock.journal.analytics.tables import Row
from penstock.journal.format import Position
from penstock.store import schema
from penstock.store.sql import Database
from tests.control.bed import T0, Bed, exchange


@pytest.fixture
async def bed(sqlite: Database, tmp_path: Path) -> AsyncIterator[Bed]:
    made = Bed(sqlite, tmp_path)
    await made.prepare()
    yield made
    await made.http.aclose()


@pytest.fixture
async def http(bed: Bed, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.state.control = bed.control
    install_error_handlers(app)
    api = APIRouter(prefix="/api/v1")
    api.include_router(analytics_router(Statements(Settings(), tmp_path / "analytics")))
    app.include_router(api)
    app.include_router(retention_router())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://control") as client:
        yield client


async def test_requests_are_found_page_by_page_however_rare_they_are(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explorer, "QUICK", 10)
    monkeypatch.setattr(explorer, "SCAN", 40)
    monkeypatch.setattr(requests_search, "_PIECE", 10)
    slow = Phases(1, 2, 3, 4, 5, 2_000_000_000)
    records = [
        exchange(n, model="new" if n == 3 else "bot", phases=slow if n % 50 == 1 else Phases()) for n in range(200)
    ]
    assert (await bed.send(records)).status_code == 200

    async def found(**query: Any) -> tuple[list[str], int]:
        ids: list[str] = []
        pages, before = 0, None
        while True:
            page = (
                await bed.call("GET", "/requests", **query, **({} if before is None else {"before": before}))
            ).json()
            ids += [one["id"] for one in page["requests"]]
            pages += 1
            before = page["next"]
            if before is None:
                return ids, pages

    assert await found(model="new") == ([records[3].id], 5), "four pages were looked through to their bound"
    assert (await found(min_latency_ms=1999.5))[0] == [records[n].id for n in (151, 101, 51, 1)]
    assert (await found(min_latency_ms=2000.5))[0] == []
    assert (await found(min_latency_ms=1, limit=1))[0] == [records[n].id for n in (151, 101, 51, 1)]
    window = {"from": T0 + 1.0, "to": T0 + 1.05}
    assert (await found(**window))[0] == [records[n].id for n in (104, 103, 102, 101, 100)]
    assert (await found(id="00%1"))[0] == []
    assert (await found(id="_00019", limit=5))[0] == [records[n].id for n in range(199, 189, -1)]
    assert (await bed.call("GET", "/requests", key="guest")).json()["requests"] == []


async def test_sql_sees_the_callers_tenant_alone(http: httpx.AsyncClient, tmp_path: Path) -> None:
    async def query(sql: str, key: str = "admin", **more: object) -> httpx.Response:
        return await http.post(
            "/api/v1/query", json={"sql": sql, **more}, headers={"authorization": f"Bearer {key}"}, timeout=60
        )

    missing = await query("SELECT 1")
    assert (missing.status_code, missing.json()["error"]["code"]) == (503, "analytics_missing")
    store = AnalyticsStore(tmp_path / "analytics")
    rows = [Row("w", Position(1, n), exchange(n, tenant="ab"[n % 2])) for n in range(10)]
    store.add("w", Position(1, 64), 500, rows, 5.0)
    store.close()
    count = "SELECT tenant, count(*) AS n FROM exchanges GROUP BY ALL ORDER BY tenant"
    told = (await query(count)).json()
    assert told["columns"] == [{"name": "tenant", "type": "VARCHAR"}, {"name": "n", "type": "BIGINT"}]
    assert told["rows"] == [["a", 5], ["b", 5]]
    assert (await query(count, "guest")).json()["rows"] == [["b", 5]]
    assert (await query("SELECT id FROM exchanges", limit=3)).json()["cut"] is True
    assert (await query("@days")).json()["rows"]
    refused = await query("COPY exchanges TO '/tmp/x.csv'")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_query")
    assert (await query(count, "nobody")).status_code == 401
    named = await http.get("/api/v1/query/named", headers={"authorization": "Bearer analyst"})
    assert "cost" in {one["name"] for one in named.json()}


async def retained(bed: Bed) -> None:
    async with bed.control.database.write() as connection:
        for kind, name, spec in (
            ("Policy", "default", {"retention_days": 90}),
            ("Policy", "brief", {"retention_days": 3}),
            ("Policy", "silent", {}),
            ("Tenant", "a", {"policy": "brief"}),
            ("Tenant", "b", {"policy": "silent"}),
            ("Tenant", "c", {}),
        ):
            await connection.execute(
                insert(schema.resources).values(
                    kind=kind, name=name, spec=spec, generation=1, origin="api", created_at=T0, updated_at=T0
                )
            )


async def test_the_policy_says_how_long_things_are_kept(bed: Bed, http: httpx.AsyncClient) -> None:
    await retained(bed)
    told = await http.get("/internal/v1/retention", headers={"authorization": "Bearer service"})
    assert told.json() == {"default": 90, "tenants": {"a": 3}}
    assert (await http.get("/internal/v1/retention")).status_code == 401


async def test_the_index_forgets_what_is_too_old_and_keeps_what_was_counted(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forget, "PIECE", 4)
    await retained(bed)
    ages = {"a": (1, 2, 4, 5, 400), "b": (1, 89, 91, 92), "c": (50, 100)}
    records = [
        exchange(n, id=f"{tenant}{days}", tenant=tenant, at=T0 - days * 86400)
        for n, (tenant, days) in enumerate((t, d) for t, all_days in ages.items() for d in all_days)
    ]
    assert (await bed.send(records)).status_code == 200
    assert await forget.Forgetter(bed.control).round() == 6
    left = (await bed.call("GET", "/requests")).json()["requests"]
    assert sorted(one["id"] for one in left) == ["a1", "a2", "b1", "b89", "c50"]
    assert await forget.Forgetter(bed.control).round() == 0
    window: dict[str, Any] = {"from": T0 - 399 * 86400, "to": T0}
    used = (await bed.call("GET", "/usage", by="tenant", **window)).json()["rows"]
    assert sum(row["requests"] for row in used) == 10
