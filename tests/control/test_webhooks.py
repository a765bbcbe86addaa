"""Webhooks from the change to the receiver's answer: signed, in order, again after failures and cuts, given up, sent anew, and never to private places."""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock.control.context import SYSTEM, Control
from penstock.control.webhooks import loop as loop_module
from penstock.control.webhooks import rows as rows_module
from penstock.control.webhooks.kind import WebhookKind
from penstock.control.webhooks.loop import Dispatcher
from penstock.control.webhooks.rows import list_deliveries, redeliver
from penstock.control.webhooks.send import Sender
from penstock.core.errors import BadRequest, NotFound, Unavailable
from penstock.core.settings import Settings, WebhookSettings
from penstock.delivery.webhooks import parse_networks
from penstock.store.blobs import open_blobs
from penstock.store.sql import Database
from tests.control.house import House, running_house
from tests.control.receiver import OTHER, SECRET, Receiver, receiving
from tests.control.test_gates import key_of
from tests.net.certificates import make_certificate

LOCAL = WebhookSettings(allow_networks="127.0.0.1", give_up_s=3600.0)


class Told:
    """A control whose clock is moved by hand, a receiver, and the dispatcher between them."""

    def __init__(self, control: Control, receiver: Receiver, clock: list[float]) -> None:
        self.control, self.receiver, self.clock = control, receiver, clock
        self.kind = WebhookKind(control)
        self.dispatcher = Dispatcher(control)
        settings = control.settings.webhooks
        self.sender = Sender(
            networks=parse_networks([n for n in settings.allow_networks.split(",") if n]), timeout_s=settings.timeout_s
        )

    async def create(self, name: str = "hook", **spec: Any) -> None:
        parsed = self.kind.parse({"url": self.receiver.url, "secret": "deploys", **spec})
        async with self.control.change(SYSTEM) as change:
            await self.kind.put(change, name, parsed, "api")

    async def happens(self, action: str, subject: str, **detail: Any) -> None:
        async with self.control.deed(SYSTEM) as change:
            await change.audit(action, subject, **detail)

    async def send(self, seconds: float = 0.0) -> None:
        """All that is due after so many seconds, and what becomes due by that."""
        self.clock[0] += seconds
        while True:
            await self.dispatcher.round(self.sender)
            going = list(self.dispatcher._sending.values())
            if not going:
                return
            await asyncio.gather(*going)

    async def deliveries(self, name: str = "hook", state: str | None = None) -> list[dict[str, Any]]:
        async with self.control.database.read() as connection:
            return await list_deliveries(connection, name, state=state, limit=100)

    async def again(self, sequence: int | None) -> int:
        async with self.control.deed(SYSTEM) as change:
            return await redeliver(change, "hook", sequence)


def secrets_in(data: Path) -> Path:
    """The folder of secrets, with one."""
    folder = data / "secrets"
    folder.mkdir()
    (folder / "deploys").write_text(SECRET + "\n")
    return folder


@asynccontextmanager
async def telling(
    database: Database, data: Path, settings: WebhookSettings = LOCAL, context: ssl.SSLContext | None = None
) -> AsyncIterator[Told]:
    clock = [1_800_000_000.0]
    secrets_in(data)
    control = Control(
        settings=Settings(data=str(data), webhooks=settings),
        data=data,
        database=database,
        blobs=open_blobs("", data / "blobs", database),
        service_token="service",
        clock=lambda: clock[0],
        entropy=os.urandom,
    )
    async with receiving(context) as receiver:
        told = Told(control, receiver, clock)
        yield told
        await told.sender.close()


@pytest.fixture
async def told(sqlite: Database, tmp_path: Path) -> AsyncIterator[Told]:
    async with telling(sqlite, tmp_path) as made:
        yield made


@pytest.fixture
async def told_by_each(database: Database, tmp_path: Path) -> AsyncIterator[Told]:
    """Over each kind of database."""
    async with telling(database, tmp_path) as made:
        yield made


async def test_what_happens_is_told_signed_with_what_it_was(told: Told) -> None:
    await told.happens("deployment.promote", "staging/bot", label="v1")  # before there was a webhook
    await told.create()
    await told.happens("deployment.promote", "staging/bot", label="v2")
    await told.send()
    [got] = told.receiver.got
    assert got.is_signed_with(SECRET)
    assert not got.is_signed_with(OTHER)
    assert got.headers["content-type"] == "application/json"
    assert got.headers["webhook-timestamp"] == "1800000000"
    assert got.headers["host"] == f"127.0.0.1:{told.receiver.port}"
    assert got.told["type"] == "deployment.promote"
    assert got.told["timestamp"] == "2027-01-15T08:00:00.000Z"
    data = got.told["data"]
    assert (data["model"], data["environment"], data["principal"]) == ("bot", "staging", "penstock")
    assert data["detail"] == {"label": "v2"}
    [delivery] = await told.deliveries()
    assert (delivery["state"], delivery["id"], delivery["attempts"]) == ("delivered", got.id, 1)
    assert delivery["sequence"] == data["sequence"]


async def test_a_failure_holds_its_model_alone_and_nothing_is_lost_or_turned_round(told_by_each: Told) -> None:
    told = told_by_each
    await told.create(events=["version.*"])
    told.receiver.answers["version.commit bot:v1"] = [500, -1, 302, 503]
    for subject in ("bot:v1", "other:v1", "bot:v2", "bot:v3", "other:v2"):
        await told.happens("version.commit", subject, digest=subject)
    await told.happens("deployment.live", "production/bot")  # not asked for
    await told.send()
    assert told.receiver.delivered(model="other") == [("version.commit", "other:v1"), ("version.commit", "other:v2")]
    assert told.receiver.delivered(model="bot") == [("version.commit", "bot:v1")]
    [first, *_] = [one for one in await told.deliveries(state="waiting") if one["subject"] == "bot:v1"]
    assert first["error"] == "It answered with status 500."
    assert told.clock[0] + 0.5 <= first["next_at"] <= told.clock[0] + 1.0
    for _ in range(4):
        await told.send(10.0)
    told_of = told.receiver.delivered(model="bot")
    assert told_of == [("version.commit", f"bot:v{n}") for n in (1, 1, 1, 1, 1, 2, 3)]
    assert len({got.id for got in told.receiver.got if got.told["data"]["subject"] == "bot:v1"}) == 1
    assert all(got.path == "/hook" for got in told.receiver.got)  # the redirect was not followed
    assert await told.deliveries(state="waiting") == []


async def test_what_was_undone_is_not_told(told: Told) -> None:
    await told.create()
    with pytest.raises(RuntimeError):
        async with told.control.change(SYSTEM) as change:
            await change.audit("deployment.live", "production/bot")
            raise RuntimeError
    async with told.control.change(SYSTEM) as change:
        await change.audit("deployment.live", "production/bot")
        change.abandon()
    await told.send()
    assert told.receiver.got == []


async def test_cut_off_between_reply_and_note_it_is_sent_again_with_the_same_id(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    await told.create()
    for subject in ("bot:v1", "bot:v2"):
        await told.happens("version.commit", subject)
    settle = rows_module.settle

    async def away(*_: Any) -> None:
        raise Unavailable("The database is away.")

    monkeypatch.setattr(loop_module, "settle", away)
    await told.dispatcher.round(told.sender)
    await asyncio.gather(*told.dispatcher._sending.values())
    monkeypatch.setattr(loop_module, "settle", settle)
    told.dispatcher = Dispatcher(told.control)
    await told.send()
    assert len(told.receiver.got) == 1  # whoever sent it may still be at it
    await told.send(LOCAL.timeout_s + 10)
    assert told.receiver.delivered() == [("version.commit", f"bot:v{n}") for n in (1, 1, 2)]
    assert told.receiver.got[0].id == told.receiver.got[1].id


async def test_two_leaders_do_not_send_twice(told_by_each: Told) -> None:
    told = told_by_each
    await told.create()
    await told.happens("version.commit", "bot:v1")
    others = [Dispatcher(told.control) for _ in range(3)]
    await asyncio.gather(*(one.round(told.sender) for one in others))
    await asyncio.gather(*(task for one in others for task in one._sending.values()))
    assert len(told.receiver.got) == 1


async def test_a_dead_letter_lets_the_next_go_is_shown_and_sent_again(told: Told) -> None:
    await told.create()
    told.receiver.answers["version.commit bot:v1"] = [503] * 100
    await told.happens("version.commit", "bot:v1")
    await told.happens("version.commit", "bot:v2")
    for _ in range(14):
        await told.send(400.0)
    [dead] = await told.deliveries(state="dead")
    assert (dead["subject"], dead["status"], dead["error"]) == ("bot:v1", 503, "It answered with status 503.")
    assert told.receiver.delivered()[-1] == ("version.commit", "bot:v2")
    told.receiver.answers.clear()
    assert await told.again(None) == 1
    await told.send()
    assert told.receiver.delivered()[-1] == ("version.commit", "bot:v1")
    assert await told.deliveries(state="dead") == []
    newest = (await told.deliveries())[0]
    assert await told.again(newest["sequence"]) == 1
    await told.send()
    assert told.receiver.got[-1].id == newest["id"]
    with pytest.raises(NotFound):
        await told.again(99999)


async def test_a_receiver_that_is_gone_wants_no_more_of_it(told: Told) -> None:
    await told.create()
    told.receiver.answers["version.commit bot:v1"] = [410]
    await told.happens("version.commit", "bot:v1")
    await told.send()
    assert [one["state"] for one in await told.deliveries()] == ["dead"]


async def test_switched_off_it_is_kept_and_told_in_order_after(told: Told) -> None:
    await told.create(enabled=False)
    for number in range(3):
        await told.happens("version.commit", f"bot:v{number}")
    await told.send()
    assert told.receiver.got == []
    await told.create(enabled=True)
    await told.send()
    assert told.receiver.delivered() == [("version.commit", f"bot:v{number}") for number in range(3)]


async def test_a_secret_is_changed_by_signing_with_both(told: Told, tmp_path: Path) -> None:
    await told.create()
    (tmp_path / "secrets" / "deploys").write_text(f"{SECRET}\n{OTHER}\n")
    await told.happens("version.commit", "bot:v1")
    await told.send()
    (tmp_path / "secrets" / "deploys").unlink()
    await told.happens("version.commit", "bot:v2")
    await told.send()
    [got] = told.receiver.got
    assert got.is_signed_with(SECRET)
    assert got.is_signed_with(OTHER)
    [waiting] = await told.deliveries(state="waiting")
    assert "the secret 'deploys' cannot be read" in waiting["error"]


async def test_private_addresses_are_refused_by_whatever_name(sqlite: Database, tmp_path: Path) -> None:
    async with telling(sqlite, tmp_path, WebhookSettings()) as told:
        with pytest.raises(BadRequest) as refused:
            await told.create()
        assert refused.value.code == "address_refused"
        await told.create(url=f"https://localhost:{told.receiver.port}/hook")  # a name: looked at when it is sent
        await told.happens("version.commit", "bot:v1")
        await told.send()
        [waiting] = await told.deliveries()
        assert "is no public address (webhooks.allow_networks lets networks in)" in waiting["error"]
        assert told.receiver.got == []


async def test_a_receiver_that_hangs_is_left_after_its_time(sqlite: Database, tmp_path: Path) -> None:
    settings = WebhookSettings(allow_networks="127.0.0.1", timeout_s=0.2)
    async with telling(sqlite, tmp_path, settings) as told:
        await told.create()
        told.receiver.answers["version.commit bot:v1"] = [0]
        await told.happens("version.commit", "bot:v1")
        await told.send()
        assert (await told.deliveries())[0]["error"] == "There was no answer within 0.2 s."


async def test_through_tls_the_name_is_checked_though_the_address_was_chosen(
    sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = make_certificate(tmp_path / "tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    settings = WebhookSettings(allow_networks="127.0.0.1,::1")
    async with telling(sqlite, tmp_path, settings, context) as told:
        await told.create(url=f"https://localhost:{told.receiver.port}/hook")
        await told.create("wrong", url=f"https://wrong.example:{told.receiver.port}/hook")
        await told.create("mixed", url=f"https://mixed.example:{told.receiver.port}/hook")
        _resolve(monkeypatch, {"wrong.example": ["127.0.0.1"], "mixed.example": ["127.0.0.1", "10.0.0.1"]})
        await told.happens("version.commit", "bot:v1")
        await told.send()
        [got] = told.receiver.got
        assert got.headers["host"] == f"localhost:{told.receiver.port}"
        [refused] = await told.deliveries("wrong")
        assert "certificate" in refused["error"]
        [mixed] = await told.deliveries("mixed")
        assert "10.0.0.1 is no public address" in mixed["error"]


def _resolve(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]]) -> None:
    """A name server of our own."""
    loop = asyncio.get_running_loop()
    resolve = loop.getaddrinfo

    async def found(host: Any, port: Any, **more: Any) -> Any:
        if host not in names:
            return await resolve(host, port, **more)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in names[host]]

    monkeypatch.setattr(loop, "getaddrinfo", found)


async def test_what_is_old_goes_and_what_waits_stays(sqlite: Database, tmp_path: Path) -> None:
    async with telling(sqlite, tmp_path, WebhookSettings(allow_networks="127.0.0.1", give_up_s=1e9)) as told:
        await told.create()
        told.receiver.answers["version.commit bot:v1"] = [503] * 3
        await told.happens("version.commit", "bot:v1")
        await told.happens("version.commit", "other:v1")
        await told.send()
        told.clock[0] += 8 * 86400.0
        await told.send()
        assert [one["subject"] for one in await told.deliveries()] == ["bot:v1"]
        told.receiver.answers.clear()
        await told.send(4000.0)
        assert told.receiver.got[-1].told["data"]["subject"] == "bot:v1"


async def test_the_api_declares_tells_and_sends_again(sqlite: Database, tmp_path: Path) -> None:
    secrets_in(tmp_path)
    async with receiving() as receiver, running_house(sqlite, tmp_path, clock=time.time, webhooks=LOCAL) as house:
        dispatcher, sender = Dispatcher(house.control), Sender(networks=parse_networks(["127.0.0.1"]), timeout_s=10.0)
        spec = {"url": receiver.url, "secret": "deploys", "events": ["canary.*"], "models": ["bot"]}
        await _are_refused(house, spec)
        for name in ("one", "other"):
            await house.post("/webhooks", {"kind": "Webhook", "name": name, "spec": spec})
        await house.post("/webhooks/one/test")
        receiver.answers["webhook.test one"] = [410]
        await dispatcher.round(sender)
        await asyncio.gather(*dispatcher._sending.values())
        await sender.close()
        assert [got.told["type"] for got in receiver.got] == ["webhook.test"]  # the other hears nothing of it
        [dead] = await house.get("/webhooks/one/deliveries?state=dead")
        assert dead["error"] == "It answered with status 410."
        assert (await house.get("/webhooks/one/standing"))["dead"] == 1
        text = (await house.admin.get("/metrics")).text
        assert 'penstock_webhook_dead_letters{webhook="one"} 1.0' in text
        assert 'penstock_webhook_attempts_total{result="failed",webhook="one"} 1.0' in text
        assert (await house.post("/webhooks/one/redeliver", {}, status=200)) == {"redelivered": 1}
        assert (await house.get("/webhooks/one/standing"))["waiting"] == 1
        operator = await key_of(house, "ops", "operator")
        document = {"kind": "Webhook", "name": "x", "spec": spec}
        for path, body in (("", document), ("/one/test", None), ("/one/redeliver", {})):
            assert (await operator.post(f"/api/v1/webhooks{path}", json=body)).status_code == 403
        assert (await operator.get("/api/v1/webhooks/one/deliveries")).status_code == 200
        assert (await house.admin.delete("/api/v1/webhooks/one")).status_code == 204
        assert (await house.get("/webhooks/one/deliveries", 404))["error"]["param"] == "name"
        assert {one["type"] for one in await house.get("/events")} >= {"pipeline.refuse", "deployment.live"}


async def _are_refused(house: House, good: dict[str, Any]) -> None:
    """What cannot be declared is refused by its path."""
    for changes, param in (
        ({"url": "ftp://example.com/"}, "spec.url"),
        ({"url": "https://u:p@example.com/"}, "spec.url"),
        ({"url": "https://10.0.0.1/"}, "spec.url"),
        ({"url": "https://[::1]/"}, "spec.url"),
        ({"url": "http://8.8.8.8/"}, "spec.url"),
        ({"events": ["deploy.live"]}, "spec.events"),
        ({"secret": "../admin.key"}, "spec.secret"),
        ({"secret": "nothing"}, "spec.secret"),
        ({"colour": "red"}, "spec.colour"),
    ):
        documents = [{"kind": "Webhook", "name": "hook", "spec": good | changes}]
        reply = await house.admin.post("/api/v1/apply", json={"documents": documents})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param), reply.text
