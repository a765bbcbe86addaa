"""What every keystore promises: files of one host, and control's database with a host that shares its keys."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.journal.keyfiles import FileKeystore
from penstock.journal.keystore import Census, Tombstone, subject_of
from penstock.journal.masterkey import Wrapping
from penstock.journal.sealing import SubjectKey
from penstock.store.sql import Database
from tests.contract.shared_keys import Fleet, HostOfFleet, LoopThread, emptied, opened
from tests.databases import furnished
from tests.postgres import PostgresServer


class Store(Protocol):
    """What the suite asks for."""

    @property
    def hash_key(self) -> bytes: ...
    @property
    def unsynced(self) -> bool: ...
    def key_of(self, tenant: str, subject: str) -> SubjectKey: ...
    def find(self, key: str) -> SubjectKey | Tombstone | None: ...
    def forget(self, tenant: str, subject: str | None, now: float) -> int: ...
    def sync(self) -> None: ...
    def census(self) -> Census: ...
    def close(self) -> None: ...


Opener = Callable[[], Store]
Databases = Callable[[str], tuple[LoopThread, Database]]


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Databases]:
    """Each kind of database once, emptied for each test, and the loop that it is used from."""
    thread = LoopThread()
    known: dict[str, Database] = {}

    def give(kind: str) -> tuple[LoopThread, Database]:
        if kind not in known:
            file = tmp_path_factory.mktemp("keys") / "keys.db"
            url = furnished(file) if kind == "sqlite" else thread.run(postgres.fresh_database())
            known[kind] = thread.run(opened(url))
        return thread, thread.run(emptied(known[kind]))

    yield give
    for database in known.values():
        thread.run(database.close())
    thread.stop()


@pytest.fixture(params=["files", "sqlite", "postgresql"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens the same keystore again and again, as processes of one host do."""
    made: list[Store] = []
    if request.param == "files":

        def open_files() -> Store:
            made.append(FileKeystore.open(tmp_path / "keys", Wrapping(bytes(32))))
            return made[-1]

        yield open_files
        for one in made:
            one.close()
        return
    fleet = Fleet(tmp_path, *request.getfixturevalue("databases")(request.param))
    owner = fleet.keystore("host")
    exchange = fleet.exchange(owner)

    def open_shared() -> Store:
        made.append(HostOfFleet(fleet, fleet.keystore("host"), [lambda: fleet.step(exchange)]))
        return made[-1]

    yield open_shared
    for one in (*made, owner):
        one.close()
    fleet.close()


def test_a_subject_keeps_its_key(opener: Opener) -> None:
    store = opener()
    key = store.key_of("acme", "user/a")
    assert store.key_of("acme", "user/a") == key
    assert opener().key_of("acme", "user/a") == key
    assert opener().find(key.id) == key
    assert len(key.key) == 32
    assert (
        len({store.key_of(*who) for who in (("acme", "user/a"), ("acme", "user/b"), ("other", "user/a"), ("acme", ""))})
        == 4
    )
    assert opener().census() == Census(4, 0)


def test_the_hash_key_stays(opener: Opener) -> None:
    assert opener().hash_key == opener().hash_key


def test_a_destroyed_key_is_gone_for_all_and_never_comes_back(opener: Opener) -> None:
    one, other = opener(), opener()
    key = one.key_of("acme", "user/a")
    assert other.key_of("acme", "user/a") == key
    assert opener().forget("acme", "user/a", 1234.5) == 1
    assert one.find(key.id) == opener().find(key.id) == Tombstone(key.id, 1234.5)
    new = other.key_of("acme", "user/a")
    assert new.id != key.id
    assert new.key != key.key
    assert one.key_of("acme", "user/a") == new
    assert one.find(key.id) == Tombstone(key.id, 1234.5)
    assert one.forget("acme", "user/a", 2000.0) == 1
    assert one.forget("acme", "user/a", 3000.0) == 0
    assert one.find(new.id) == Tombstone(new.id, 2000.0)
    assert one.census() == Census(0, 2)


def test_destroying_leaves_others_alone(opener: Opener) -> None:
    store = opener()
    kept = [store.key_of("acme", "user/b"), store.key_of("other", "user/a"), store.key_of("acme", "")]
    store.key_of("acme", "user/a")
    store.forget("acme", "user/a", 1.0)
    assert [store.find(key.id) for key in kept] == kept
    assert store.forget("acme", None, 2.0) == 2
    assert [isinstance(store.find(key.id), Tombstone) for key in kept] == [True, False, True]
    assert store.key_of("other", "user/a") == kept[1]
    assert store.forget("nobody", None, 3.0) == store.forget("nobody", "user/a", 3.0) == 0


@pytest.mark.parametrize("name", ["", "xyz", "ab", "0" * 32, "f" * 32, "0" * 34])
def test_a_key_that_was_never_there(opener: Opener, name: str) -> None:
    assert opener().find(name) is None


def test_keys_reach_the_disk_when_asked_to(opener: Opener) -> None:
    store = opener()
    assert not store.unsynced
    store.key_of("acme", "user/a")
    assert store.unsynced
    store.sync()
    assert not store.unsynced


def test_who_is_the_subject() -> None:
    assert subject_of("u", "s") == "user/u"
    assert subject_of("", "s") == "session/s"
    assert subject_of("", "") == ""


_Step = st.tuples(st.sampled_from(["ask", "ask", "ask", "forget", "forget_all"]), st.integers(0, 2), st.integers(0, 3))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(_Step, max_size=15))
def test_whatever_happens_in_whatever_order(opener_of: Callable[[], Opener], steps: list[tuple[str, int, int]]) -> None:
    open_one = opener_of()
    stores = [open_one() for _ in range(3)]
    current: dict[str, str] = {}
    dead: set[str] = set()
    for number, (step, store, who) in enumerate(steps):
        name, now = f"user/{who}", 1000.0 * (number + 1)
        if step == "ask":
            key = stores[store].key_of("acme", name)
            assert key.id not in dead
            assert current.setdefault(name, key.id) == key.id
        elif step == "forget":
            assert stores[store].forget("acme", name, now) == (name in current)
            dead |= {current.pop(name)} if name in current else set()
        else:
            assert stores[store].forget("acme", None, now) == len(current)
            dead |= set(current.values())
            current.clear()
    for one in stores:
        assert all(isinstance(one.find(name), Tombstone) for name in dead)
        assert one.census() == Census(len(current), len(dead))


@pytest.fixture(params=["files", "sqlite"])
def opener_of(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Opener]]:
    """A fresh keystore each time, to be opened again and again."""
    ends: list[Callable[[], None]] = []

    def fresh() -> Opener:
        folder = tmp_path_factory.mktemp("keys")
        if request.param == "files":

            def open_files() -> Store:
                one = FileKeystore.open(folder / "keys", Wrapping(bytes(32)))
                ends.append(one.close)
                return one

            return open_files
        fleet = Fleet(folder, *request.getfixturevalue("databases")(request.param))
        exchange = fleet.exchange(fleet.keystore("host"))

        def open_shared() -> Store:
            return HostOfFleet(fleet, fleet.keystore("host"), [lambda: fleet.step(exchange)])

        ends.append(fleet.close)
        return open_shared

    yield fresh
    for end in ends:
        end()
