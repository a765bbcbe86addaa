"""What every keystore promises."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.journal.keyfiles import FileKeystore
from penstock.journal.keystore import Census, Keystore, Tombstone, subject_of
from penstock.journal.masterkey import Wrapping

Opener = Callable[[], Keystore]


@pytest.fixture(params=["files"])
def opener(tmp_path: Path) -> Iterator[Opener]:
    """Opens the same keystore again and again, as processes of one host do."""
    opened: list[Keystore] = []

    def open_one() -> Keystore:
        opened.append(FileKeystore.open(tmp_path / "keys", Wrapping(bytes(32))))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


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


@settings(max_examples=30, deadline=None)
@given(steps=st.lists(_Step, max_size=25))
def test_whatever_happens_in_whatever_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("keys")
    stores = [FileKeystore.open(folder, Wrapping(bytes(32))) for _ in range(3)]
    current: dict[str, str] = {}
    dead: set[str] = set()
    for step, store, who in steps:
        name = f"user/{who}"
        if step == "ask":
            key = stores[store].key_of("acme", name)
            assert key.id not in dead
            assert current.setdefault(name, key.id) == key.id
        elif step == "forget":
            assert stores[store].forget("acme", name, 5.0) == (name in current)
            dead |= {current.pop(name)} if name in current else set()
        else:
            assert stores[store].forget("acme", None, 5.0) == len(current)
            dead |= set(current.values())
            current.clear()
    for store_ in stores:
        assert all(isinstance(store_.find(one), Tombstone) for one in dead)
        assert store_.census() == Census(len(current), len(dead))
        store_.close()
