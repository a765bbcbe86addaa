"""Feedback as lines to train on: consent, masking, lineage; each export in the audit trail."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI

from penstock.control.content.feedback_export import Exporter, feedback_router
from penstock.control.errors import install_error_handlers
from penstock.core.exchange import Content, Exchange, Observation, Pair
from penstock.journal.keyfiles import FileKeystore
from penstock.journal.masterkey import Wrapping
from penstock.store.sql import Database
from tests.control.bed import T0, Bed, exchange

ASK = (("system", "Be kind."), ("user", "Where is my parcel? I am jane@example.org."))
KEPT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Where is my parcel? I am [email]."}]
DIGEST = "sha256:" + "a" * 64


class House:
    """A bed whose feedback can be exported."""

    def __init__(self, bed: Bed, keys: FileKeystore, http: httpx.AsyncClient) -> None:
        self.bed = bed
        self.keys = keys
        self.http = http

    def kept(self, number: int, *replies: str, ask: Any = ASK, **changes: Any) -> Exchange:
        one = exchange(number, tenant="a", version="m:v1.0.0", digest=DIGEST, **changes)
        key = self.keys.key_of("a", "*")
        said = [(index, "content", text) for index, text in enumerate(replies)]
        return msgspec.structs.replace(
            one, content=Content(key.id, key.seal("a", one.id, list(ask), said), masked=False)
        )

    def told(self, number: int, **changes: Any) -> Observation:
        values: dict[str, Any] = {"kind": "feedback", "consent": True} | changes
        return Observation(
            id=f"o{number}{len(str(changes))}",
            at=T0,
            received=self.bed.now,
            tenant="a",
            request=exchange(number).id,
            **values,
        )

    async def export(self, status: int = 200, **body: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        headers = {"authorization": "Bearer admin"}
        reply = await self.http.post("/api/v1/feedback/export", json=body, headers=headers)
        assert reply.status_code == status, reply.text
        lines = [json.loads(line) for line in reply.text.splitlines()]
        return lines[:-1], lines[-1]


@pytest.fixture
async def house(sqlite: Database, tmp_path: Path) -> AsyncIterator[House]:
    bed = Bed(sqlite, tmp_path)
    await bed.prepare()
    keys = FileKeystore.open(tmp_path / "keys", Wrapping(bytes(32)), clock=lambda: bed.now - 1)
    app = FastAPI()
    app.state.control = bed.control
    install_error_handlers(app)
    app.include_router(feedback_router(Exporter(bed.control, keys)), prefix="/api/v1")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://control") as http:
        yield House(bed, keys, http)
    await bed.http.aclose()
    keys.close()


async def test_corrections_ratings_and_preferences_become_lines(house: House) -> None:
    pair = Pair(arm="treatment", shown=("treatment", "control"), digest="sha256:" + "b" * 64)
    sent: list[Any] = [
        house.kept(1, "At home."),
        house.told(1, corrected="On its way, write to bob@example.org."),
        house.kept(2, "Follow it under My orders."),
        house.told(2, rating=1.0),
        house.kept(3, "I do not know."),
        house.told(3, success=False),
        house.kept(4, "First.", "Second.", pair=pair, experiment="e", arm="control"),
        house.told(4, kind="preference", name="chosen", value=0.0),
        exchange(5, tenant="a"),
        house.told(5, rating=1.0),
        house.kept(6, "x"),
        house.told(6, rating=0.0),
    ]
    assert (await house.bed.send(sent)).status_code == 200
    lines, summary = await house.export()
    assert [(one["kind"], one["lineage"]["how"]) for one in lines] == [
        ("supervised", "corrected"),
        ("preference", "corrected"),
        ("supervised", "rated"),
        ("preference", "joined"),
        ("preference", "chosen"),
    ]
    assert lines[0]["messages"] == [*KEPT, {"role": "assistant", "content": "On its way, write to [email]."}]
    assert lines[0]["lineage"]["request"] == exchange(1).id
    assert lines[0]["lineage"]["digest"] == DIGEST
    assert (lines[1]["prompt"], lines[1]["rejected"]) == (KEPT, [{"role": "assistant", "content": "At home."}])
    assert lines[3]["chosen"][0]["content"] == "Follow it under My orders."
    assert lines[3]["lineage"]["rejected"]["request"] == exchange(3).id
    chosen = lines[4]["lineage"]
    assert (chosen["chosen_digest"], chosen["rejected_digest"]) == (pair.digest, DIGEST)
    assert all(one["consent"] and one["masked"] for one in lines)
    assert (summary["supervised"], summary["preferences"], summary["observations"]) == (2, 3, 6)
    assert summary["left_out"] == {"no_consent": 0, "no_content": 1, "says_nothing": 1}


async def test_what_nobody_consented_to_needs_a_reason_and_is_written_down(house: House) -> None:
    sent: list[Any] = [house.kept(1, "Fine."), house.told(1, rating=1.0, consent=False)]
    assert (await house.bed.send(sent)).status_code == 200
    lines, summary = await house.export()
    assert (lines, summary["left_out"]["no_consent"]) == ([], 1)
    bodies: tuple[dict[str, Any], ...] = ({"without_consent": True}, {"mask": []})
    for body in bodies:
        refused = await house.http.post("/api/v1/feedback/export", json=body, headers={"authorization": "Bearer admin"})
        assert refused.json()["error"]["code"] == "reason_needed"
    lines, _ = await house.export(without_consent=True, mask=[], reason="the contract with a")
    assert [(one["consent"], one["masked"]) for one in lines] == [(False, False)]
    assert "jane@example.org" in lines[0]["messages"][1]["content"]
    events = [one for one in await house.bed.table(audit_events()) if one["action"].startswith("feedback.")]
    assert [one["action"] for one in events] == ["feedback.export", "feedback.exported"] * 2
    assert events[2]["detail"]["without_consent"] is True
    assert events[2]["detail"]["reason"] == "the contract with a"


async def test_what_was_forgotten_is_in_no_export(house: House) -> None:
    assert (await house.bed.send([house.kept(1, "Fine."), house.told(1, rating=1.0)])).status_code == 200
    house.keys.forget("a", None, house.bed.now)
    lines, summary = await house.export()
    assert (lines, summary["left_out"]["no_content"]) == ([], 1)


async def test_filters_leave_out_the_rest(house: House) -> None:
    sent: list[Any] = [
        house.kept(1, "Fine."),
        house.told(1, rating=5.0),
        house.kept(2, "Bad."),
        house.told(2, rating=2.0),
    ]
    assert (await house.bed.send(sent)).status_code == 200
    assert len((await house.export(good_at=4, bad_at=2))[0]) == 2
    assert (await house.export(version="m:v9.0.0"))[0] == []
    assert (await house.export(version="other"))[0] == []
    assert len((await house.export(version="m", good_at=4))[0]) == 1
    assert (await house.export(tenant="b"))[0] == []
    assert (await house.export(to=1.0))[0] == []


def audit_events() -> Any:
    from penstock.store.schema import audit_events as table

    return table
