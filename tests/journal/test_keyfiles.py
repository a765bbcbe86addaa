"""Keys in files: several processes, torn writes, flipped bytes, a full disk, kills."""

import errno
import multiprocessing
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from penstock.core.errors import Damaged, Unavailable
from penstock.journal.keyfiles import FileKeystore
from penstock.journal.keystore import Tombstone
from penstock.journal.masterkey import Wrapping
from penstock.journal.sealing import SubjectKey

MASTER = Wrapping(bytes(32))


def opened(folder: Path) -> FileKeystore:
    return FileKeystore.open(folder / "keys", MASTER)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "keys").glob("*.keys"))


def _ask(folder: Path, start: Any, names: list[str], told: Any) -> None:
    store = opened(folder)
    start.wait()
    told.put([store.key_of("acme", name) for name in names])


def test_processes_that_make_a_key_at_the_same_time_agree(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    names = [f"user/{number}" for number in range(300)]
    start, told = context.Barrier(3), context.Queue()
    children = [context.Process(target=_ask, args=(tmp_path, start, names, told)) for _ in range(3)]
    for child in children:
        child.start()
    answers: list[list[SubjectKey]] = [told.get(timeout=60) for _ in children]
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert answers[0] == answers[1] == answers[2]
    assert len({key.key for key in answers[0]}) == len(names)
    assert opened(tmp_path).census().living >= len(
        names
    )  # a slot that came second is never used, and is destroyed with the first
    store = opened(tmp_path)
    for name in names[:20]:
        assert store.forget("acme", name, 1.0) >= 1
    fresh = [store.key_of("acme", name) for name in names[:20]]
    assert not {key.key for key in fresh} & {key.key for key in answers[0]}


def test_the_master_key_and_the_keys_are_not_in_the_files(tmp_path: Path) -> None:
    store = opened(tmp_path)
    keys = [store.key_of("acme", f"user/{number}").key for number in range(50)]
    written = b"".join(path.read_bytes() for path in files(tmp_path))
    assert not [key for key in keys if key in written]
    assert b"acme" not in written
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {0o600}


def test_what_processes_share_has_its_room_on_the_disk(tmp_path: Path) -> None:
    opened(tmp_path).close()
    assert (tmp_path / "keys" / "destroyed").stat().st_blocks > 0, "or a full disk would end whoever destroys a key"


def test_a_destroyed_key_leaves_nothing_of_it(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.key_of("acme", "user/a")
    (path,) = files(tmp_path)
    wrapped = path.read_bytes()[52:112]
    store.forget("acme", "user/a", 1.0)
    assert path.read_bytes()[52:112] == bytes(60)
    assert wrapped not in path.read_bytes()


def test_a_torn_slot_disturbs_no_other(tmp_path: Path) -> None:
    store = opened(tmp_path)
    name = "user/a"
    store.key_of("acme", name)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    for torn in (1, 31, 115):
        path.write_bytes(whole[:torn])
        key = opened(tmp_path).key_of("acme", name)
        assert opened(tmp_path).key_of("acme", name) == key
        assert opened(tmp_path).find(key.id) == key
        assert len(path.read_bytes()) == torn + len(whole)


def test_flipped_bytes_never_give_another_key(tmp_path: Path) -> None:
    store = opened(tmp_path)
    key = store.key_of("acme", "user/a")
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 64]) + whole[at + 1 :])
        assert opened(tmp_path).find(key.id) is None


def test_a_slot_of_another_root_is_refused(tmp_path: Path) -> None:
    store = opened(tmp_path)
    key = store.key_of("acme", "user/a")
    (path,) = files(tmp_path)
    (tmp_path / "keys" / "root.json").unlink()
    other = FileKeystore.open(tmp_path / "keys", MASTER)
    assert path.exists()
    with pytest.raises(Damaged, match="root key"):
        other.find(key.id)


def test_a_disk_that_is_full_costs_the_key_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(tmp_path)
    known = store.key_of("acme", "user/a")
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:50]))
    with pytest.raises(OSError, match="is not there"):
        store.key_of("acme", "user/b")
    assert store.key_of("acme", "user/a") == known
    monkeypatch.undo()
    assert store.key_of("acme", "user/b") == opened(tmp_path).key_of("acme", "user/b")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file")
    with pytest.raises(Unavailable, match="keys"):
        opened(tmp_path)


_CHILD = """
import sys
from pathlib import Path
from penstock.core.exchange import Content, Exchange
from penstock.journal.keyfiles import FileKeystore
from penstock.journal.masterkey import Wrapping
from penstock.journal.vault import Vault
from penstock.journal.writer import JournalWriter
import time
folder = Path(sys.argv[1])
vault = Vault(FileKeystore.open(folder / "keys", Wrapping(bytes(32))))
writer = JournalWriter.open(folder / "journal" / "w", "w", loop=None, clock=time.time)
print("ready", flush=True)
number = 0
while True:
    number += 1
    request = f"req_{number}_{sys.argv[2]}"
    key, sealed = vault.seal("acme", f"user/{sys.argv[2]}/{number}", request, [("user", request)], [])
    writer.append(Exchange(id=request, at=1.0, tenant="acme", content=Content(key, sealed)))
    writer.flush()
"""


def test_killed_between_key_and_record(tmp_path: Path) -> None:
    """Wherever a worker is killed, every content that is in the journal can be read, and the next worker goes on."""
    from penstock.core.exchange import Exchange
    from penstock.journal.content import unseal
    from penstock.journal.reader import iterate

    rng = random.Random(7)
    for turn in range(4):
        child = subprocess.Popen([sys.executable, "-c", _CHILD, tmp_path, str(turn)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        grown = _size(tmp_path) + 20_000
        deadline = time.monotonic() + 60
        while _size(tmp_path) < grown:
            assert time.monotonic() < deadline
            assert child.poll() is None
        for _ in range(rng.randrange(3000)):
            pass
        os.kill(child.pid, signal.SIGKILL)
        child.wait(60)
        child.stdout.close()
    store = opened(tmp_path)
    contents = [r for _, r in iterate(tmp_path / "journal" / "w") if isinstance(r, Exchange) and r.content is not None]
    assert len({r.id.rpartition("_")[2] for r in contents}) == 4
    for record in contents:
        assert record.content is not None
        key = store.find(record.content.key)
        assert isinstance(key, SubjectKey)
        assert unseal(key, "acme", record.id, record.content).messages == (("user", record.id),)
    assert store.census().living >= len(contents)


def test_keys_are_destroyed_again_after_a_sync_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are dead in memory alone are written and synced once more, and other processes let go of them at once."""
    store, worker = opened(tmp_path), opened(tmp_path)
    key = worker.key_of("acme", "user/a")
    synced: list[int] = []
    written: list[int] = []

    def refuse(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output"):
        store.forget("acme", "user/a", 1.0)
    assert worker.key_of("acme", "user/a").id != key.id
    opened(tmp_path).forget(
        "acme", "user/a", 2.0, made_before=1.0
    )  # nothing lives that is so old: as a start repeats it
    monkeypatch.undo()
    pwrite = os.pwrite
    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setattr(os, "pwrite", lambda *args: written.append(args[2]) or pwrite(*args))  # type: ignore[func-returns-value]
    for subject in ("user/a", None):
        synced.clear()
        written.clear()
        assert store.forget("acme", subject, 3.0) == (1 if subject else 0)
        assert len(synced) == 1
        assert sorted(written) == [0, 116]
    assert store.find(key.id) == Tombstone(key.id, 1.0)


def test_a_destruction_that_fails_makes_others_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, worker = opened(tmp_path), opened(tmp_path)
    keys = {name: worker.key_of("acme", name).id for name in ("user/a", "user/b", "user/c")}
    pwrite = os.pwrite
    left = [1]

    def once(descriptor: int, data: bytes, at: int) -> int:
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        left.pop()
        return pwrite(descriptor, data, at)

    monkeypatch.setattr(os, "pwrite", once)
    with pytest.raises(OSError, match="No space"):
        store.forget("acme", None, 1.0)
    gone = [name for name, key in keys.items() if isinstance(store.find(key), Tombstone)]
    assert len(gone) == 1
    assert worker.key_of("acme", gone[0]).id != keys[gone[0]]


def test_keys_are_written_again_after_a_sync_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages whose sync failed count as clean: a sync that only asked once more would be told that all is well."""
    store, other = opened(tmp_path), opened(tmp_path)
    keys = [store.key_of("acme", "user/a"), store.key_of("acme", "user/b")]
    assert other.key_of("acme", "user/a") == keys[0]
    fsync, pwrite = os.fsync, os.pwrite
    written: list[tuple[bytes, int]] = []

    def refuse(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def write(descriptor: int, data: bytes, at: int) -> int:
        written.append((data, at))
        return pwrite(descriptor, data, at)

    monkeypatch.setattr(os, "pwrite", write)
    store.sync()
    store.key_of("acme", "user/c")
    assert written == []
    monkeypatch.setattr(os, "fsync", refuse)
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            store.sync()
        assert store.unsynced
    monkeypatch.setattr(os, "fsync", fsync)
    before = {path: path.read_bytes() for path in files(tmp_path)}
    for one in (store, other):  # the other process's fsync would never have failed
        written.clear()
        one.sync()
        assert written
        assert {data for data, _ in written} <= set(before.values())
        assert not one.unsynced
    assert {path: path.read_bytes() for path in files(tmp_path)} == before
    written.clear()
    store.key_of("acme", "user/d")
    store.sync()
    assert written == []


def test_a_key_that_is_made_during_a_sync_stays_unsynced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(tmp_path)
    store.key_of("acme", "user/a")
    (path,) = files(tmp_path)
    later = [name for number in range(60000) if _file_of(name := f"user/{number}") == path.name][:2]
    fsync = os.fsync

    def late(descriptor: int) -> None:
        fsync(descriptor)
        if later and not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            store.key_of("acme", later.pop())

    monkeypatch.setattr(os, "fsync", late)
    store.sync()
    assert files(tmp_path) == [path]
    assert store.unsynced
    later.clear()
    store.sync()
    assert not store.unsynced


def test_a_new_file_and_a_key_of_another_process_reach_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker, finder = opened(tmp_path), opened(tmp_path)
    maker.key_of("acme", "user/a")
    finder.key_of("acme", "user/a")
    (path,) = files(tmp_path)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    for store in (maker, finder):
        synced.clear()
        store.sync()
        assert sorted(synced) == sorted([path.parent.stat().st_ino, path.stat().st_ino])
    synced.clear()
    finder.sync()
    assert synced == []


def _file_of(subject: str) -> str:
    return blake3(b"acme\0" + subject.encode()).hexdigest()[:3] + ".keys"


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "journal" / "w").glob("*.pjl"))


def test_killed_while_destroying(tmp_path: Path) -> None:
    """A destruction that was cut off is finished by asking again; what it had reached stays destroyed."""
    store = opened(tmp_path)
    keys = [store.key_of("acme", f"user/{number}") for number in range(200)]
    code = (
        "import sys; from pathlib import Path\nfrom penstock.journal.keyfiles import FileKeystore\n"
        "from penstock.journal.masterkey import Wrapping\n"
        "store = FileKeystore.open(Path(sys.argv[1]), Wrapping(bytes(32)))\nprint('ready', flush=True)\n"
        "store.forget('acme', None, 5.0)\nprint('done', flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, tmp_path / "keys"], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    os.kill(child.pid, signal.SIGKILL)
    child.wait(60)
    child.stdout.close()
    before = [isinstance(store.find(key.id), Tombstone) for key in keys]
    assert opened(tmp_path).forget("acme", None, 6.0) == before.count(False)
    assert all(isinstance(store.find(key.id), Tombstone) for key in keys)
    assert store.key_of("acme", "user/0").key not in {key.key for key in keys}
