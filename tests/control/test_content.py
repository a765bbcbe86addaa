"""Content as the API tells it: to those who may, each reading audited; and forgotten for good."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import APIRouter, FastAPI
from sqlalchemy import insert, select

from penstock.control.api.content import content_router
from penstock.control.content.opened import STRAY_S, Contents
from penstock.control.errors import install_error_handlers
from penstock.core.digests import hash_secret
from penstock.core.exchange import Content, Exchange, Observation
from penstock.core.snapshot import Policy
from penstock.journal.content import Said
from penstock.journal.keyfiles import FileKeystore
from penstock.journal.keystore import subject_of
from penstock.journal.masterkey import Wrapping
from penstock.journal.sealing import SubjectKey
from penstock.journal.subjects import hash_subject
from penstock.journal.telling import seal_texts
from penstock.journal.vault import Vault
from penstock.store import schema
from penstock.store.schema_experiments import told_texts
from penstock.store.sql import Database
from tests.control.bed import T0, Bed, exchange
from tests.control.house import House as ControlHouse
from tests.control.house import eventually

SAID = Said(messages=(("user", "where is [card]"),), replies=((0, "content", "here"),))


class House:
    """A bed whose contents can be read."""

    def __init__(self, bed: Bed, keys: FileKeystore, http: httpx.AsyncClient) -> None:
        self.bed = bed
        self.keys = keys
        self.http = http
        self.contents = bed.contents = Contents(bed.control, keys)

    def kept(self, number: int, *, user: str = "", tenant: str = "a", said: Said = SAID) -> Exchange:
        hashed = hash_subject(self.keys.hash_key, user)
        one = exchange(number, tenant=tenant, user=hashed)
        key = self.keys.key_of(tenant, subject_of(hashed, ""))
        sealed = Content(key.id, key.seal(tenant, one.id, list(said.messages), list(said.replies)), masked=True)
        return msgspec.structs.replace(one, content=sealed)

    def told(
        self, number: int, text: str, *, tenant: str = "a", after: float = -1.0, name: str = "o", kind: str = "feedback"
    ) -> Observation:
        """Feedback with a text on the request of this number."""
        said = Observation(
            id=f"{name}{number}",
            at=T0,
            received=self.bed.now + after,
            kind=kind,  # type: ignore[arg-type]
            tenant=tenant,
            request=exchange(number).id,
            text=text,
            corrected=f"not {text}",
        )
        sealed = seal_texts(Vault(self.keys), said, masked=True)
        assert sealed is not None
        return sealed

    async def texts(self, number: int) -> list[tuple[str, str]]:
        """Of the texts on a request: the state, and the text."""
        told = (await self.read(exchange(number).id)).json()
        return [(one["state"], one.get("text", "")) for one in told["texts"]]

    async def read(self, request: str, key: str = "admin") -> httpx.Response:
        return await self.http.get(f"/api/v1/requests/{request}/content", headers={"authorization": f"Bearer {key}"})

    async def forget(self, body: dict[str, Any], key: str = "admin") -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"}
        return await self.http.post("/api/v1/subjects/forget", json=body, headers=headers)

    async def audited(self) -> list[tuple[str, str, str]]:
        async with self.bed.control.database.read() as connection:
            rows = await connection.execute(select(schema.audit_events).order_by(schema.audit_events.c.sequence))
            return [(row.principal, row.action, row.subject) for row in rows]


@pytest.fixture
async def house(sqlite: Database, tmp_path: Path) -> AsyncIterator[House]:
    bed = Bed(sqlite, tmp_path)
    await bed.prepare()
    async with bed.control.database.write() as connection:
        for name, roles, tenant in (("auditor", ["auditor"], None), ("inside", ["admin"], "b")):
            values: dict[str, Any] = {"tenant": tenant, "roles": roles, "limits": {}, "origin": "api", "created_at": T0}
            await connection.execute(
                insert(schema.keys).values(id=f"key_{name}", hash=hash_secret(name), name=name, **values)
            )
    keys = FileKeystore.open(tmp_path / "keys", Wrapping(bytes(32)), clock=lambda: bed.now - 1)
    app = FastAPI()
    app.state.control = bed.control
    install_error_handlers(app)
    api = APIRouter(prefix="/api/v1")
    api.include_router(content_router(Contents(bed.control, keys)))
    app.include_router(api)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://control") as http:
        yield House(bed, keys, http)
    await bed.http.aclose()
    keys.close()


async def test_who_may_reads_and_it_is_written_down(house: House) -> None:
    one, none = house.kept(1, user="jane"), exchange(2, tenant="a")
    assert (await house.bed.send([one, none])).status_code == 200
    for key in ("admin", "auditor"):
        told = (await house.read(one.id, key)).json()
        assert told["state"] == "readable"
        assert told["messages"] == [{"role": "user", "text": "where is [card]"}]
        assert told["replies"] == [{"index": 0, "field": "content", "text": "here"}]
        assert (told["masked"], told["cut"]) == (True, False)
    assert (await house.read(none.id)).json()["state"] == "none"
    assert (await house.read(one.id, "analyst")).status_code == 403
    assert (await house.read(one.id, "inside")).status_code == 404, "another tenant's"
    assert (await house.read("req_nobody")).status_code == 404
    assert await house.audited() == [(name, "content.read", one.id) for name in ("admin", "auditor")]


async def test_requests_tell_of_content_and_not_what_it_is(house: House) -> None:
    one = house.kept(1, user="jane")
    assert (await house.bed.send([one])).status_code == 200
    for told in (
        (await house.bed.call("GET", "/requests")).json()["requests"][0],
        (await house.bed.call("GET", f"/requests/{one.id}")).json()["request"],
    ):
        assert one.content is not None
        assert told["content"] == {
            "key": one.content.key,
            "bytes": len(one.content.sealed),
            "masked": True,
            "cut": False,
        }


async def test_a_forgotten_subject(house: House) -> None:
    jane, other, theirs = house.kept(1, user="jane"), house.kept(2, user="joan"), house.kept(3, user="jane", tenant="b")
    assert (await house.bed.send([jane, other, theirs])).status_code == 200
    told = (await house.forget({"tenant": "a", "user": "jane", "reason": "asked by letter"})).json()
    assert told == {"tenant": "a", "subject": f"user/{jane.user}", "keys": 1, "at": house.bed.now, "hosts": []}
    gone = (await house.read(jane.id)).json()
    assert (gone["state"], gone["destroyed_at"], gone["messages"]) == ("destroyed", house.bed.now, [])
    assert "destroyed" in gone["why"]
    assert [(await house.read(one.id)).json()["state"] for one in (other, theirs)] == ["readable", "readable"]
    assert (await house.forget({"tenant": "a", "user": "jane"})).json()["keys"] == 0
    audited = await house.audited()
    assert audited[0] == ("admin", "subject.forget", f"a/user/{jane.user}")
    assert not [event for event in audited if "jane" in str(event)]


async def test_all_of_a_tenant(house: House) -> None:
    records = [house.kept(1, user="jane"), house.kept(2), house.kept(3, tenant="b")]
    assert (await house.bed.send(records)).status_code == 200
    assert (await house.forget({"tenant": "a", "everyone": True})).json()["keys"] == 2
    states = [(await house.read(one.id)).json()["state"] for one in records]
    assert states == ["destroyed", "destroyed", "readable"]


@pytest.mark.parametrize(
    "body",
    [{}, {"tenant": "a"}, {"tenant": "a", "user": "u", "session": "s"}, {"tenant": "a", "user": "u", "everyone": True},
     {"tenant": "a", "user": ""}, {"tenant": "a", "usr": "u"}],
)  # fmt: skip
async def test_one_subject_is_named(house: House, body: dict[str, Any]) -> None:
    assert (await house.forget(body)).status_code in {400, 422}
    assert await house.audited() == []


async def test_who_may_not_forget(house: House) -> None:
    for key, tenant in (("auditor", "a"), ("analyst", "a"), ("inside", "a")):
        assert (await house.forget({"tenant": tenant, "user": "u"}, key)).status_code == 403
    assert (await house.forget({"tenant": "b", "user": "u"}, "inside")).status_code == 200


async def test_what_was_changed_or_is_of_elsewhere_says_so(house: House, tmp_path: Path) -> None:
    one, two, other = house.kept(1, user="u"), house.kept(2, user="u"), house.kept(3, tenant="b")
    assert one.content is not None
    assert two.content is not None
    assert other.content is not None
    swapped = msgspec.structs.replace(one, content=two.content)
    foreign = msgspec.structs.replace(two, content=msgspec.structs.replace(two.content, key=other.content.key))
    lost = msgspec.structs.replace(other, content=msgspec.structs.replace(other.content, key="ab" * 16))
    assert (await house.bed.send([swapped, foreign, lost])).status_code == 200
    states = [(await house.read(record.id)).json()["state"] for record in (swapped, foreign, lost)]
    assert states == ["damaged", "damaged", "lost"]
    assert await house.audited() == [], "nothing was read"


async def test_a_restored_backup_of_keys_brings_nothing_back(house: House, tmp_path: Path) -> None:
    jane, joan = house.kept(1, user="jane"), house.kept(2, user="joan")
    assert (await house.bed.send([jane, joan])).status_code == 200
    backup = {path: path.read_bytes() for path in (tmp_path / "keys").glob("*.keys")}
    await house.forget({"tenant": "a", "user": "jane"})
    for path, data in backup.items():
        path.write_bytes(data)
    house.bed.now += 100
    later = house.keys.key_of("a", subject_of(hash_subject(house.keys.hash_key, "jim"), ""))
    assert (await house.read(jane.id)).json()["state"] == "readable"
    assert await house.contents.forget_again() == 1
    assert await house.contents.forget_again() == 0
    assert (await house.read(jane.id)).json()["state"] == "destroyed"
    assert (await house.read(joan.id)).json()["state"] == "readable"
    assert house.keys.find(later.id) == later


async def test_a_key_made_after_is_not_destroyed_again(house: House) -> None:
    house.kept(1, user="jane")
    await house.forget({"tenant": "a", "user": "jane"})
    house.bed.now += 100
    again = house.kept(2, user="jane")
    assert await house.contents.forget_again() == 0
    assert (await house.bed.send([again])).status_code == 200
    assert (await house.read(again.id)).json()["state"] == "readable"


async def test_readings_elsewhere_are_written_down(house: House) -> None:
    headers = {"authorization": "Bearer auditor"}
    body = {"source": "journal of gateway-0 on a host"}
    assert (await house.http.post("/api/v1/content/readings", json=body, headers=headers)).status_code == 201
    headers = {"authorization": "Bearer analyst"}
    assert (await house.http.post("/api/v1/content/readings", json=body, headers=headers)).status_code == 403
    assert await house.audited() == [("auditor", "content.read", body["source"])]


async def test_what_is_kept_reaches_the_snapshot(small_house: ControlHouse) -> None:
    document = """
kind: Policy
name: kept
spec: {capture: masked, capture_share: 0.25, capture_mask: [email, number], capture_chars: 5000}
"""
    headers = {"content-type": "application/yaml"}
    reply = await small_house.admin.post("/api/v1/apply", content=document, headers=headers)
    assert reply.status_code == 200, reply.text

    def found() -> Policy | None:
        now = small_house.publisher.current
        return next((one for one in now.policies if one.name == "kept"), None) if now is not None else None

    await eventually(lambda: found() is not None)
    wanted = Policy(
        name="kept", capture="masked", capture_share=0.25, capture_mask=("email", "number"), capture_chars=5000
    )
    assert found() == wanted
    for field, value in (
        ("capture_share", "1.5"),
        ("capture_mask", "[names]"),
        ("capture_chars", "10"),
        ("capture", "some"),
    ):
        wrong = f"kind: Policy\nname: kept\nspec: {{{field}: {value}}}\n"
        reply = await small_house.admin.post("/api/v1/apply", content=wrong, headers=headers)
        assert reply.status_code == 400
        assert field in reply.text


async def test_texts_of_feedback_are_read_like_content(house: House) -> None:
    one = exchange(1, tenant="a")
    told = house.told(1, "very rude")
    assert (await house.bed.send([one, told])).status_code == 200
    page = (await house.bed.call("GET", f"/requests/{one.id}")).json()
    assert page["observations"][0]["text"] == ""
    assert page["observations"][0]["text_chars"] == len("very rude")
    assert "rude" not in str(page)
    read = (await house.read(one.id)).json()
    assert read["state"] == "none"
    (text,) = read["texts"]
    assert (text["state"], text["text"], text["corrected"]) == ("readable", "very rude", "not very rude")
    assert (await house.read(one.id, "analyst")).status_code == 403
    assert await house.audited() == [("admin", "content.read", one.id)]


@pytest.mark.parametrize("before", [False, True])
async def test_texts_are_forgotten_with_whoever_asked(house: House, before: bool) -> None:
    """Whether the feedback comes before its request or after it."""
    jane, joan = house.kept(1, user="jane"), house.kept(2, user="joan")
    records = [jane, joan], [house.told(1, "of jane"), house.told(2, "of joan"), house.told(1, "of b", tenant="b")]
    for batch in reversed(records) if before else records:
        assert (await house.bed.send(batch)).status_code == 200
    assert await house.texts(1) == [("readable", "of jane")]
    assert (await house.forget({"tenant": "a", "user": "jane"})).json()["keys"] == 2
    assert await house.texts(1) == [("destroyed", "")]
    assert await house.texts(2) == [("readable", "of joan")]
    foreign = house.told(1, "of b", tenant="b")
    assert isinstance(house.keys.find(foreign.content.key if foreign.content else ""), SubjectKey), "another tenant's"
    assert (await house.forget({"tenant": "a", "everyone": True})).json()["keys"] == 2
    assert await house.texts(2) == [("destroyed", "")]


async def test_a_text_whose_request_never_comes_is_not_kept_for_ever(house: House) -> None:
    """Its record was removed before, or is lost: the wish of whoever asked would not reach the text."""
    strays = [house.told(1, "of whom?"), house.told(2, "of jane")]
    assert (await house.bed.send(strays)).status_code == 200

    def found() -> list[str]:
        return [type(house.keys.find(one.content.key if one.content else "")).__name__ for one in strays]

    house.bed.now += STRAY_S - 60
    assert (await house.bed.send([house.kept(2, user="jane")])).status_code == 200
    assert await house.contents.forget_strays() == 0
    house.bed.now += 120
    assert await house.contents.forget_strays() == 1
    assert found() == ["Tombstone", "SubjectKey"]
    assert [row["request"] for row in await house.bed.table(told_texts)] == [strays[1].request]


async def test_a_text_that_is_taken_in_after_its_author_was_forgotten(house: House) -> None:
    """It lay in the journal of a host whose shipper was away. What is told afterwards is another matter."""
    early = house.told(1, "early")
    assert (await house.bed.send([house.kept(1, user="jane")])).status_code == 200
    assert (await house.forget({"tenant": "a", "user": "jane"})).json()["keys"] == 1
    house.bed.now += 10
    assert (await house.bed.send([early])).status_code == 200
    assert await house.texts(1) == [("destroyed", "")]
    assert (await house.bed.send([house.told(1, "later", name="p")])).status_code == 200
    assert await house.texts(1) == [("destroyed", ""), ("readable", "later")]


async def test_a_request_that_is_taken_in_after_its_author_was_forgotten(house: House) -> None:
    early, request = house.told(1, "early"), house.kept(1, user="jane")
    assert (await house.bed.send([early])).status_code == 200
    await house.forget({"tenant": "a", "user": "jane"})
    house.bed.now += 10
    assert (await house.bed.send([request])).status_code == 200
    assert await house.texts(1) == [("destroyed", "")]


async def test_texts_out_of_a_backup_of_the_keys_are_destroyed_again(house: House, tmp_path: Path) -> None:
    assert (await house.bed.send([house.kept(1, user="jane"), house.told(1, "early")])).status_code == 200
    backup = {path: path.read_bytes() for path in (tmp_path / "keys").glob("*.keys")}
    await house.forget({"tenant": "a", "user": "jane"})
    for path, data in backup.items():
        path.write_bytes(data)
    assert await house.texts(1) == [("readable", "early")]
    assert await house.contents.forget_again() == 2
    assert await house.texts(1) == [("destroyed", "")]


async def test_a_disk_that_refuses_is_owed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    early = house.told(1, "early")
    assert (await house.bed.send([house.kept(1, user="jane")])).status_code == 200
    await house.forget({"tenant": "a", "user": "jane"})

    def refuse(*_: object, **__: object) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(house.keys, "forget", refuse)
        assert (await house.bed.send([early])).status_code == 200, "the batch is taken in all the same"
    assert await house.texts(1) == [("readable", "early")]
    await house.contents.forget_late([])
    assert await house.texts(1) == [("destroyed", "")]
