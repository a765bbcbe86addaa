"""Subjects' keys in files of fixed slots, for all processes of one host without a lock: `docs/decisions/0023-content-and-keys.md`.

A file holds the slots of all subjects whose hash begins with its three hexadecimal digits. Slots are only ever appended (`O_APPEND`, one write each) or
turned into tombstones where they stand; they are found by what they hold, not by where they are, so that a torn one disturbs no other.
Of several living slots of one subject the first counts: whoever appends reads again, and so all agree.
"""

import fcntl
import math
import mmap
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from penstock.core.errors import Conflict, Damaged, Unavailable
from penstock.journal.keyslots import (
    DEAD,
    HEAD,
    KEY_AT,
    LIVING,
    SLOT_BYTES,
    SUBJECT_AT,
    TENANT_AT,
    Slot,
    find_slots,
    hash_of_subject,
    hash_of_tenant,
    living_slot,
    read_slot,
    tombstone,
)
from penstock.journal.keystore import Census, Tombstone
from penstock.journal.masterkey import (
    KEY_BYTES,
    Wrapping,
    WrongKey,
    read_key,
)
from penstock.journal.sealing import SubjectKey
from penstock.journal.whole import create_whole, replace_whole, sync_folder

_FILE = re.compile(r"[0-9a-f]{3}\.keys")
_MOST_HELD = 65536
_ROOT = b"penstock root key"
_HASH = b"penstock hash key"


class Root(msgspec.Struct, frozen=True, kw_only=True):
    """The file `root.json`: the keys that everything else is wrapped by, wrapped by the master key. Keys are hexadecimal."""

    version: int = 1
    master: str  # the master key's mark
    root: str
    names: str  # the key under which names of people are hashed


class FileKeystore:
    """A `Keystore` in a folder. Its owner is one thread, but `sync` may run in others; each process opens its own."""

    def __init__(self, folder: Path, root: bytes, hash_key: bytes, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._wrapping = Wrapping(root)
        self._hash_key = hash_key
        self._clock = clock
        self._held: dict[tuple[str, str], SubjectKey] = {}
        self._given = 0  # how often a key was looked up in a file; never the same twice, so that a sync knows what came after it began
        self._unsynced: dict[str, int] = {}  # by path, `_given` as it was at the last look
        self._named: set[str] = set()  # paths whose names are on the disk
        self._lock = threading.Lock()  # of these three
        descriptor = os.open(folder / "destroyed", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, 16)  # a page that a full disk has no room for kills whoever writes to it
            self._map = mmap.mmap(descriptor, 16)
        finally:
            os.close(descriptor)
        # How often keys were destroyed, and how often a sync failed, as all processes see it.
        self._pages = memoryview(self._map).cast("Q")
        self._seen = self._pages[0]
        self._sound = self._pages[1]  # failures after which all that was given out here has been written again

    @classmethod
    def open(
        cls, folder: Path, master: Wrapping, *, former: Path | None = None, clock: Callable[[], float] = time.time
    ) -> "FileKeystore":
        """The keystore in `folder`, made if there is none.

        Args:
            folder: its own.
            master: the master key.
            former: a plain file with the key for names, which is taken over and removed. One that holds another key than was taken over is left.
            clock: Unix seconds.

        Raises:
            Conflict: if its keys are wrapped by another master key.
            Damaged: if it cannot be understood.
            Unavailable: if the disk refuses.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (folder / "root.json").exists():
                _make_root(folder, master, former)
            root, names = _open_root(folder, master)
            if former is not None and _holds(former, names):
                former.unlink(missing_ok=True)
            return cls(folder, root, names, clock)
        except OSError as error:
            raise Unavailable(f"The keys in {folder} cannot be read and written: {error.strerror}.") from error

    @property
    def hash_key(self) -> bytes:
        """See `Keystore.hash_key`."""
        return self._hash_key

    @property
    def folder(self) -> Path:
        """Where it stands."""
        return self._folder

    @property
    def mark(self) -> str:
        """Tells the root key from others: keys go to keystores with the same one alone."""
        return self._wrapping.mark

    @property
    def destructions(self) -> int:
        """How often keys were destroyed, by whichever process."""
        return self._pages[0]

    def key_of(self, tenant: str, subject: str) -> SubjectKey:
        """See `Keystore.key_of`."""
        if self._pages[0] != self._seen:
            self._seen = self._pages[0]
            self._held.clear()
        held = self._held.get((tenant, subject))
        if held is not None:
            return held
        key = self._found_or_made(tenant, hash_of_subject(tenant, subject))
        if len(self._held) >= _MOST_HELD:
            self._held.clear()
        self._held[tenant, subject] = key
        return key

    def find(self, key: str) -> SubjectKey | Tombstone | None:
        """See `Keystore.find`."""
        try:
            name = bytes.fromhex(key)
        except ValueError:
            return None
        if len(name) != 16:
            return None
        data = _read(self._path(key))
        for at in find_slots(data, name, KEY_AT):
            slot = read_slot(data[at : at + SLOT_BYTES])
            return self.open_slot(slot) if slot.wrapped else Tombstone(key, slot.at)
        return None

    def forget(self, tenant: str, subject: str | None, now: float, *, made_before: float = math.inf) -> int:
        """See `Keystore.forget`."""
        hashed = None if subject is None else hash_of_subject(tenant, subject)
        return self.destroy(hash_of_tenant(tenant), hashed, now, made_before)

    def destroy(self, tenant: bytes, subject: bytes | None, now: float, made_before: float = math.inf) -> int:
        """`forget` for who knows the hashes alone (`journal.keyslots`)."""
        with self._alone():
            try:
                if subject is None:
                    return sum(self._destroy(path, tenant, TENANT_AT, now, made_before) for path in self._files())
                return self._destroy(self._path(subject.hex()), subject, SUBJECT_AT, now, made_before)
            finally:
                self._pages[0] += 1

    def living(self, tenant: bytes, subject: bytes | None) -> list[Slot]:
        """The slots of living keys, by hashes: of a subject, or of all that are the tenant's."""
        paths = self._files() if subject is None else [self._path(subject.hex())]
        wanted, offset = (tenant, TENANT_AT) if subject is None else (subject, SUBJECT_AT)
        found: list[Slot] = []
        for path in paths:
            data = _read(path)
            found += [read_slot(data[at : at + SLOT_BYTES]) for at in find_slots(data, wanted, offset)]
        return [slot for slot in found if slot.wrapped]

    def rewrap(self, old: Wrapping, new: Wrapping) -> None:
        """Has `new` be the master key instead of `old`. Processes that run go on with what they have opened.

        Raises:
            Conflict: if `old` is not the master key.
        """
        with self._alone():
            root, names = _open_root(self._folder, old)
            replace_whole(self._folder / "root.json", _root_text(new, root, names))

    def sync(self) -> None:
        """See `Keystore.sync`."""
        with self._lock:
            begun = dict(self._unsynced)
            unnamed = begun.keys() - self._named
        failures = self._pages[1]
        if failures != self._sound:
            self._write_again(begun)
        try:
            if unnamed:
                sync_folder(self._folder)
                with self._lock:
                    self._named |= unnamed
            for path, given in begun.items():
                _sync_file(path)
                with self._lock:
                    if self._unsynced.get(path) == given:
                        del self._unsynced[path]
        except OSError:
            self._pages[1] += 1
            raise
        self._sound = failures

    def _write_again(self, paths: Iterable[str]) -> None:
        """Writes what stands in these files where it stands: pages whose sync failed count as clean, whichever process was told of it."""
        with self._alone():  # what is destroyed meanwhile must not come back
            for path in paths:
                data = _read(Path(path))
                descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.pwrite(descriptor, data, 0)
                finally:
                    os.close(descriptor)

    @property
    def unsynced(self) -> bool:
        """See `Keystore.unsynced`."""
        return bool(self._unsynced)

    def census(self) -> Census:
        """See `Keystore.census`."""
        living = destroyed = 0
        for path in self._files():
            data = _read(path)
            living += sum(1 for _ in find_slots(data, LIVING, 0))
            destroyed += sum(1 for _ in find_slots(data, DEAD, 0))
        return Census(living, destroyed)

    def close(self) -> None:
        """See `Keystore.close`."""
        self._pages.release()
        self._map.close()

    def _path(self, digits: str) -> Path:
        return self._folder / f"{digits[:3]}.keys"

    def _files(self) -> list[Path]:
        return sorted(path for path in self._folder.iterdir() if _FILE.fullmatch(path.name))

    def _living(self, data: bytes, hashed: bytes) -> SubjectKey | None:
        for at in find_slots(data, LIVING + hashed, 0):
            return self.open_slot(read_slot(data[at : at + SLOT_BYTES]))
        return None

    def open_slot(self, slot: Slot) -> SubjectKey:
        """The key in a living slot.

        Raises:
            Damaged: if it was not wrapped by the root key.
        """
        try:
            key = self._wrapping.unwrap(slot.wrapped, slot.head)
        except WrongKey:
            raise Damaged(f"A subject's key was not wrapped by the root key in {self._folder}.") from None
        return SubjectKey(slot.id.hex(), key)

    def _found_or_made(self, tenant: str, hashed: bytes) -> SubjectKey:
        path = f"{self._folder}/{hashed.hex()[:3]}.keys"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            key = self._living(_whole(descriptor), hashed)
            if key is None:
                os.write(descriptor, self._slot(tenant, hashed))
                key = self._living(_whole(descriptor), hashed)
        finally:
            os.close(descriptor)
        if key is None:  # destroyed in this very moment, or half written
            raise OSError(0, "a key that was just written is not there", path)
        with self._lock:  # one that was found, too: whoever made it may not have synced it yet
            self._given += 1
            self._unsynced[path] = self._given
        return key

    def _destroy(self, path: Path, wanted: bytes, offset: int, now: float, made_before: float) -> int:
        data = _read(path)
        found = [(at, read_slot(data[at : at + SLOT_BYTES])) for at in find_slots(data, wanted, offset)]
        living = [(at, slot) for at, slot in found if slot.wrapped and slot.at < made_before]
        # What the audit trail repeats at every start was on the disk before its event was written: if nothing lives, nothing is synced.
        if not living and (made_before < math.inf or wanted not in data):
            return 0
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for at, slot in living:
                os.pwrite(descriptor, tombstone(slot.subject, slot.tenant, slot.id, now), at)
            # Those that are dead may be so in memory alone. They are written again: pages whose sync failed count as clean.
            for at, slot in found:
                if not slot.wrapped:
                    os.pwrite(descriptor, data[at : at + SLOT_BYTES], at)
            self._pages[0] += 1  # here too: if this process is killed in the sync, others have let go of the keys
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return len(living)

    def _slot(self, tenant: str, hashed: bytes) -> bytes:
        name = hashed[:2] + os.urandom(14)  # so that the file follows from the id, too
        head = HEAD.pack(LIVING, hashed, hash_of_tenant(tenant), name, self._clock())
        return living_slot(head, self._wrapping.wrap(os.urandom(KEY_BYTES), head))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Holds the lock of those who change what stands there."""
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _sync_file(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _whole(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0) if size else b""


def _root_text(master: Wrapping, root: bytes, names: bytes) -> bytes:
    wrapped = Root(
        master=master.mark, root=master.wrap(root, _ROOT).hex(), names=Wrapping(root).wrap(names, _HASH).hex()
    )
    return msgspec.json.encode(wrapped) + b"\n"


def _make_root(folder: Path, master: Wrapping, former: Path | None) -> None:
    names = read_key(former) if former is not None and former.exists() else os.urandom(KEY_BYTES)
    create_whole(folder / "root.json", _root_text(master, os.urandom(KEY_BYTES), names))


def _holds(path: Path, key: bytes) -> bool:
    try:
        return read_key(path) == key
    except Damaged:
        return False


def _open_root(folder: Path, master: Wrapping) -> tuple[bytes, bytes]:
    path = folder / "root.json"
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Root)
        wrapped, names = bytes.fromhex(found.root), bytes.fromhex(found.names)
    except (msgspec.DecodeError, ValueError) as error:
        raise Damaged(f"{path} is damaged: {error}. Restore it from a backup.", param=str(path)) from None
    if found.version != 1:
        raise Damaged(f"{path} has version {found.version}; this program reads version 1.", param=str(path))
    if found.master != master.mark:
        raise Conflict(
            f"The keys in {folder} are wrapped by the master key with the mark {found.master}; the one that was given has "
            f"{master.mark}.",
            code="wrong_master_key",
            param="keys.master_file",
            hint="Give the right one in PENSTOCK_KEYS_MASTER, or in the file that keys.master_file names.",
        )
    try:
        root = master.unwrap(wrapped, _ROOT)
        return root, Wrapping(root).unwrap(names, _HASH)
    except WrongKey:
        raise Damaged(
            f"{path} is damaged: its keys cannot be unwrapped. Restore it from a backup.", param=str(path)
        ) from None
