"""Feedback, events, reports and preferences."""

from pathlib import Path

import msgspec
import pytest

from penstock.core.snapshot import Policy
from tests.gateway.house import OTHER, running
from tests.gateway.raw_client import ask, post

REQUEST = "req_" + "0" * 26


def body(**fields: object) -> bytes:
    return msgspec.json.encode({"id": "mine-1", "request_id": REQUEST, **fields})


async def test_each_kind_is_journalled(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        for path, fields in (
            ("feedback", {"rating": 1, "success": True, "text": "good", "consent": True}),
            ("events", {"name": "conversion", "value": 9.5, "user": "u1", "at": "2024-05-01T12:00:00Z"}),
            ("reports", {"reason": "harmful", "text": "bad"}),
            ("preferences", {"chosen": 1, "consent": True}),
            ("preferences", {"chosen": "tie", "id": "mine-2"}),
        ):
            got = await ask(house.port, post(f"/v1/{path}", body(**fields)))
            assert got.status == 200, got.body
            assert msgspec.json.decode(got.body)["request_id"] == REQUEST
        found = house.observations()
        assert [one.kind for one in found] == ["feedback", "event", "report", "preference", "preference"]
        assert all((one.tenant, one.key, one.request) == ("acme", "key_1", REQUEST) for one in found)
        assert (found[0].rating, found[0].success, found[0].consent) == (1.0, True, True)
        assert (found[1].name, found[1].value, found[1].at) == ("conversion", 9.5, 1714564800.0)
        assert len(found[1].user) == 32
        assert (found[3].name, found[3].value, found[3].consent) == ("chosen", 1.0, True)
        assert (found[4].name, found[4].value, found[4].consent) == ("tie", None, False)


@pytest.mark.parametrize(
    ("policies", "kept"),
    [
        ((), "ask [email]"),
        ((Policy(name="default"),), "ask [email]"),
        ((Policy(name="default", capture="masked", capture_mask=("number",)),), "ask jane@example.com"),
        ((Policy(name="default", capture="full"),), "ask jane@example.com"),
    ],
)
async def test_texts_are_masked_unless_the_policy_keeps_all(
    tmp_path: Path, policies: tuple[Policy, ...], kept: str
) -> None:
    text = "ask jane@example.com"
    async with running(tmp_path, policies=policies) as house:
        await ask(house.port, post("/v1/feedback", body(text=text, corrected=text)))
        await ask(house.port, post("/v1/reports", body(reason="wrong", text=text)))
        feedback, report = house.told()
        assert (feedback.text, feedback.corrected, report.text) == (kept, kept, kept)
        for one in house.observations():  # encrypted, with lengths beside
            assert (one.text, one.corrected, one.text_chars) == ("", "", len(kept))
            assert one.content is not None
            assert one.content.masked is (not policies or policies[0].capture != "full")
        assert b"jane" not in b"".join(path.read_bytes() for path in (tmp_path / "journal").rglob("*.pjl"))


async def test_a_text_that_cannot_be_encrypted_is_not_taken(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        keys = tmp_path / "keys"
        for path in keys.iterdir():
            path.unlink()
        keys.rmdir()
        got = await ask(house.port, post("/v1/feedback", body(text="so")))
        assert (got.status, house.observations()) == (503, [])
        assert (await ask(house.port, post("/v1/feedback", body(rating=1)))).status == 200
        keys.mkdir()
        got = await ask(house.port, post("/v1/feedback", body(text="so", id="mine-2")))
        assert got.status == 200
        assert [one.text_chars for one in house.observations()] == [0, 2]


async def test_a_repeat_is_answered_as_the_first_time_and_journalled_once(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        first = await ask(house.port, post("/v1/feedback", body(rating=1)))
        second = await ask(house.port, post("/v1/feedback", body(rating=-1)))
        assert first.body == second.body
        assert len(house.observations()) == 1
        await ask(house.port, post("/v1/feedback", body(rating=1), key=OTHER))
        assert [one.tenant for one in house.observations()] == ["acme", "other"]


@pytest.mark.parametrize(
    ("path", "data", "param"),
    [
        ("feedback", body(ratin=1), "ratin"),
        ("feedback", body(), "rating"),
        ("feedback", body(rating="good"), "rating"),
        ("feedback", b'{"request_id":"' + REQUEST.encode() + b'","rating":1}', "id"),
        ("feedback", b'{"id":"a","rating":1}', "request_id"),
        ("feedback", body(rating=-1e13), "rating"),
        ("feedback", b'{"id":"a","request_id":"' + REQUEST.encode() + b'","rating":NaN}', None),
        ("events", body(name="x", value=1e300), "value"),
        ("events", b'{"id":"a","name":"x","user":"u","value":1e999}', "value"),
        ("feedback", body(request_id="nonsense", rating=1), "request_id"),
        ("events", b'{"id":"a","name":"x"}', "request_id"),
        ("events", body(name="x", at="yesterday"), "at"),
        ("events", body(name="x", at="2024-05-01T12:00:00"), "at"),
        ("reports", body(), "reason"),
        ("preferences", body(chosen=-1), "chosen"),
        ("preferences", body(chosen="left"), "chosen"),
        ("preferences", b"nope", None),
    ],
)
async def test_mistakes_are_named(tmp_path: Path, path: str, data: bytes, param: str | None) -> None:
    async with running(tmp_path) as house:
        got = await ask(house.port, post(f"/v1/{path}", data))
        assert (got.status, got.error["param"]) == (400, param), got.body
        assert not house.observations()


async def test_a_key_is_needed(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        got = await ask(house.port, post("/v1/feedback", body(rating=1), key="wrong"))
        assert (got.status, got.error["code"]) == (401, "invalid_api_key")
