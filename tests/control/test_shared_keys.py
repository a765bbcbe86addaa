"""Keys of several hosts at one control: found from there, forgotten everywhere, confirmed by each; backups, late slots, hosts that are away."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from penstock.core.errors import Conflict, Unavailable
from penstock.core.exchange import Content
from penstock.journal.control_client import ControlClient
from penstock.journal.key_control import borrow_root
from penstock.journal.key_exchange import SKEW_S, KeyExchange
from penstock.journal.keyfiles import FileKeystore
from penstock.journal.keystore import Census, Tombstone, subject_of
from penstock.journal.masterkey import Wrapping
from penstock.journal.sealing import SubjectKey
from penstock.journal.ship import ControlSink, Shipper
from penstock.journal.subjects import hash_subject
from penstock.journal.writer import JournalWriter
from penstock.store.schema import sequences
from penstock.store.schema_keys import key_orders, subject_keys
from tests.contract.shared_keys import Fleet, LoopThread, emptied, opened
from tests.control.house import TOKEN, LocalServers
from tests.control.test_serve import served
from tests.journal.records import exchange


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    thread = LoopThread()
    database = thread.run(opened(f"sqlite+aiosqlite:///{tmp_path / 'keys.db'}"))
    thread.run(emptied(database))
    made = Fleet(tmp_path, thread, database)
    yield made
    made.close()
    thread.run(database.close())
    thread.stop()


def waiting(fleet: Fleet) -> dict[str, int]:
    return {one.name: one.waiting for one in fleet.thread.run(fleet.shared.hosts())}


def test_each_host_makes_its_own_key_and_all_are_forgotten(fleet: Fleet) -> None:
    hosts = [fleet.keystore("one"), fleet.keystore("other")]
    exchanges = [fleet.exchange(host) for host in hosts]
    keys = [host.key_of("acme", "user/a") for host in hosts]
    kept = hosts[0].key_of("acme", "user/b")
    assert keys[0] != keys[1]
    assert hosts[0].hash_key == hosts[1].hash_key == fleet.shared.hash_key, "one name has one hash"
    for one in exchanges:
        fleet.step(one)
    assert [fleet.shared.find(key.id) for key in (*keys, kept)] == [*keys, kept]
    fleet.now = 1000.0
    assert fleet.shared.forget("acme", "user/a", 1000.0) == 2
    assert [fleet.shared.find(key.id) for key in keys] == [Tombstone(key.id, 1000.0) for key in keys]
    assert waiting(fleet) == {"one": 1, "other": 1}
    fleet.step(exchanges[0])
    assert waiting(fleet) == {"one": 0, "other": 1}
    assert isinstance(hosts[0].find(keys[0].id), Tombstone)
    assert isinstance(hosts[1].find(keys[1].id), SubjectKey), "it has not heard of it"
    fleet.step(exchanges[1])
    assert waiting(fleet) == {"one": 0, "other": 0}
    assert isinstance(hosts[1].find(keys[1].id), Tombstone)
    fleet.now += SKEW_S
    fresh = [host.key_of("acme", "user/a") for host in hosts]
    for one in (*exchanges, fleet.exchange(hosts[0])):  # and a shipper that was started anew
        fleet.step(one)
    assert [fleet.shared.find(key.id) for key in (*fresh, kept)] == [*fresh, kept]
    assert fleet.shared.census() == Census(3, 2)


def test_a_key_that_was_not_handed_over_when_its_subject_was_forgotten(fleet: Fleet) -> None:
    host = fleet.keystore("one")
    exchange_ = fleet.exchange(host)
    key = host.key_of("acme", "user/a")
    fleet.now = 5.0
    assert fleet.shared.forget("acme", None, 5.0) == 0
    copy = (host.folder / f"{key.id[:3]}.keys").read_bytes()
    fleet.step(exchange_)
    assert isinstance(host.find(key.id), Tombstone)
    assert isinstance(fleet.shared.find(key.id), Tombstone)
    # A backup of the folder is put back, with the place that it had come to, and handed over by another shipper.
    (host.folder / f"{key.id[:3]}.keys").write_bytes(copy)
    (host.folder / "exchange.json").unlink()
    fleet.step(fleet.exchange(host))
    assert isinstance(host.find(key.id), Tombstone)
    assert isinstance(fleet.shared.find(key.id), Tombstone)


def test_a_database_out_of_a_backup_brings_no_key_back(fleet: Fleet) -> None:
    host = fleet.keystore("one")
    exchange_ = fleet.exchange(host)
    key, kept = host.key_of("acme", "user/a"), host.key_of("acme", "user/b")
    fleet.step(exchange_)

    async def rows() -> list[dict[str, Any]]:
        async with fleet.database.read() as connection:
            return [dict(row._mapping) for row in await connection.execute(select(subject_keys))]

    async def put_back(before: list[dict[str, Any]]) -> None:
        async with fleet.database.write() as connection:
            await connection.execute(subject_keys.delete())
            await connection.execute(key_orders.delete())
            await connection.execute(insert(subject_keys), before)

    backup = fleet.thread.run(rows())
    fleet.now = 5.0
    fleet.shared.forget("acme", "user/a", 5.0)
    fleet.step(exchange_)
    late = host.key_of("acme", "user/c")
    fleet.step(exchange_)
    fleet.thread.run(put_back(backup))
    assert isinstance(fleet.shared.find(key.id), SubjectKey), "for now"
    fleet.step(exchange_)
    assert isinstance(fleet.shared.find(key.id), Tombstone)
    assert [fleet.shared.find(one.id) for one in (kept, late)] == [kept, late], (
        "what the backup had not is handed over again"
    )


def test_what_a_start_repeats_is_written_only_where_something_is_there_again(fleet: Fleet) -> None:
    host = fleet.keystore("one")
    key = host.key_of("acme", "user/a")
    fleet.step(fleet.exchange(host))

    async def counted() -> int:
        async with fleet.database.read() as connection:
            statement = select(sequences.c.value).where(sequences.c.name == "key_orders")
            return int((await connection.execute(statement)).scalar_one())

    assert fleet.shared.forget("acme", "user/a", 5.0) == 1
    before = fleet.thread.run(counted())
    assert fleet.shared.forget("acme", "user/a", 5.0, made_before=5.0) == 0
    assert fleet.thread.run(counted()) == before

    async def put_back() -> None:
        async with fleet.database.write() as connection:
            await connection.execute(update(subject_keys).values(wrapped=b"x", destroyed_at=None))

    fleet.thread.run(put_back())
    assert fleet.shared.forget("acme", "user/a", 5.0, made_before=5.0) == 1
    assert isinstance(fleet.shared.find(key.id), Tombstone)


def test_numbers_of_orders_that_were_given_twice_confirm_nothing(fleet: Fleet) -> None:
    """Control is put back to before an order and goes on, while a host that has carried it out is away."""
    host, other = fleet.keystore("one"), fleet.keystore("other")
    exchange_, key = fleet.exchange(host), host.key_of("acme", "user/b")
    fleet.step(fleet.exchange(other))
    fleet.step(exchange_)
    fleet.now = 5.0
    fleet.shared.forget("acme", "user/a", 5.0)
    fleet.step(exchange_)

    async def put_back() -> None:
        async with fleet.database.write() as connection:
            (given,) = (await connection.execute(select(key_orders.c.sequence))).scalars()
            await connection.execute(key_orders.delete())
            await connection.execute(update(sequences).where(sequences.c.name == "key_orders").values(value=given - 1))

    fleet.thread.run(put_back())
    fleet.now = 6.0
    fleet.shared.forget("acme", "user/b", 6.0)
    fleet.step(exchange_)
    assert isinstance(host.find(key.id), Tombstone), "it has the number of the one that was carried out"
    assert waiting(fleet) == {"one": 0, "other": 1}
    fleet.step(fleet.exchange(host))  # what is saved is what is sent
    assert waiting(fleet) == {"one": 0, "other": 1}


def test_a_host_with_keys_of_its_own_is_refused_and_told_why(fleet: Fleet) -> None:
    stranger = fleet.keystore("stranger", own_root=True)
    with pytest.raises(Conflict, match="root"):
        fleet.step(fleet.exchange(stranger))
    assert waiting(fleet) == {}


def test_a_host_that_is_gone_is_waited_for_until_somebody_says_so(fleet: Fleet) -> None:
    fleet.step(fleet.exchange(fleet.keystore("one")))
    fleet.now = 5.0
    fleet.shared.forget("acme", "user/a", 5.0)
    (host,) = fleet.thread.run(fleet.shared.hosts())
    assert (host.waiting, host.at) == (1, 0.0)
    fleet.thread.run(fleet.shared.remove(host.id))
    assert waiting(fleet) == {}


async def test_content_of_a_host_is_read_and_forgotten_at_control(tmp_path: Path) -> None:
    """Real control, real HTTP: a new host borrows the root, seals, ships, and hears whom to forget."""
    master = Wrapping(bytes(32))  # as `served` has it
    data, host = tmp_path / "control", tmp_path / "host"
    async with served(data, LocalServers(), starter=None, shared=True) as client:
        at = str(client.base_url)
        await borrow_root(host / "keys", at, TOKEN)
        keys = FileKeystore.open(host / "keys", master)
        user = hash_subject(keys.hash_key, "jane")
        key = keys.key_of("acme", subject_of(user, ""))
        name = exchange(1).id
        sealed = Content(key.id, key.seal("acme", name, [("user", "hello")], []), masked=True)
        writer = JournalWriter.open(host / "journal" / "gateway-0", "gateway-0", loop=None, clock=time.time)
        writer.append(exchange(1, user=user, content=sealed))
        writer.close()
        sink = ControlSink(at, TOKEN, journal=host / "journal", offsets=host / "ship")
        control = ControlClient(at, TOKEN)
        exchange_ = KeyExchange(keys, control.ask, "host-1")
        await exchange_.step()
        shipper = Shipper(sink, host / "journal", host / "ship")
        assert await shipper.step()
        client.headers["authorization"] = f"Bearer {(data / 'admin.key').read_text().strip()}"
        told = (await client.get(f"/api/v1/requests/{name}/content")).json()
        assert (told["state"], told["messages"]) == ("readable", [{"role": "user", "text": "hello"}])
        gone = (await client.post("/api/v1/subjects/forget", json={"tenant": "acme", "user": "jane"})).json()
        assert (gone["keys"], [(one["name"], one["waiting"]) for one in gone["hosts"]]) == (1, [("host-1", 1)])
        metrics = (await client.get("/metrics")).text
        assert 'penstock_forgettings_unconfirmed{host="host-1"} 1.0' in metrics
        assert (await client.get(f"/api/v1/requests/{name}/content")).json()["state"] == "destroyed"
        await exchange_.step()
        assert [one["waiting"] for one in (await client.get("/api/v1/subjects/hosts")).json()] == [0]
        assert isinstance(keys.find(key.id), Tombstone)
        (one,) = gone["hosts"]
        assert (await client.post("/api/v1/tenants", json={"name": "acme", "spec": {}})).status_code == 201
        ann = await client.post("/api/v1/keys", json={"name": "ann", "tenant": "acme", "roles": ["admin"]})
        hers = {"authorization": f"Bearer {ann.json()['key']}"}
        assert (await client.delete(f"/api/v1/subjects/hosts/{one['id']}", headers=hers)).status_code == 403
        assert (await client.delete(f"/api/v1/subjects/hosts/{one['id']}")).status_code == 204
        assert (await client.delete(f"/api/v1/subjects/hosts/{one['id']}")).status_code == 404
        assert (await client.get("/internal/v1/keys/root")).status_code == 401, "hosts alone"
        shipper.close()
        await sink.close()
        await control.close()
        keys.close()


async def test_a_first_start_without_control_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"keys\.shared needs control"):
        await borrow_root(tmp_path / "keys", "http://127.0.0.1:9", TOKEN)
    assert not (tmp_path / "keys").exists()
