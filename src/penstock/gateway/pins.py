"""What a unit, or a conversation, was given first, where a later change of shares must not move it: a table in a file, shared by a host's workers.

The file is mapped into memory: looking up costs no call to the system, what one worker writes the others see at once, and it outlives them
all. A slot has 16 bytes and a checksum, so that one that is read while it is written counts as empty. It is bounded: where all slots that a unit may
have are taken, one of them is given up, and that unit is drawn anew. It is one of the tenant that has most of these slots: hashes spread a tenant evenly,
so who fills the table has most slots everywhere, and makes room by itself. No count is kept of anybody.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from penstock.experiments.assignment import UNEXPOSED, Assigner, Assignment

SLOTS = 1 << 20
_WINDOW = 16  # slots that a unit may have
_TAG_BITS = 12  # of a key: whose it is; two tenants in 4096 have the same, and count as one
_TAGS = (1 << _TAG_BITS) - 1
_SLOT = struct.Struct("<QIHBB")  # key, epoch, share in buckets of 1/10,000, the arm's place, checksum
_BUCKETS = 10_000


class Pin(NamedTuple):
    """The arm by its place among the experiment's arms, and the epoch and share that it was given under."""

    arm: int
    epoch: int
    share: float


class Pins:
    """The table, without a `path` in memory alone. It is made when it is first asked; if the disk does not let it, nothing is kept.

    Attributes:
        given_up: pins that had to make room for others.
        failed: why there is no table, or "".
    """

    def __init__(self, path: Path | None = None, slots: int = SLOTS) -> None:
        self._path = path
        self._slots = slots
        self._map: mmap.mmap | None = None
        self.given_up = 0
        self.failed = ""

    def find(self, key: int) -> Pin | None:
        """What is known of `key` (`key_of`)."""
        table = self._table()
        if table is None:
            return None
        key |= 1
        for at in self._places(key):
            found, epoch, share, arm, check = _SLOT.unpack_from(table, at)
            if found == key and check == _check(epoch, share, arm):
                return Pin(arm, epoch, share / _BUCKETS)
            if not found:
                return None
        return None

    def keep(self, key: int, pin: Pin) -> None:
        """From now on `pin` is what is known of `key`."""
        table = self._table()
        if table is None:
            return
        key |= 1
        share = round(pin.share * _BUCKETS)
        slot = _SLOT.pack(key, pin.epoch, share, pin.arm, _check(pin.epoch, share, pin.arm))
        places = self._places(key)
        for at in places:
            found = _SLOT.unpack_from(table, at)[0]
            if found in (0, key):
                table[at : at + _SLOT.size] = slot
                return
        self.given_up += 1
        at = self._spared(table, places, key)
        table[at : at + _SLOT.size] = slot

    def _spared(self, table: mmap.mmap, places: list[int], key: int) -> int:
        """The place, of those that are all taken, that makes room for `key`: one of whoever has most of them with it, its own tenant's if that is among those."""
        whose = [_SLOT.unpack_from(table, at)[0] >> 1 & _TAGS for at in places]
        mine = key >> 1 & _TAGS
        counts = Counter(whose)
        counts[mine] += 1
        most = max(counts.values())
        given = {mine} if counts[mine] == most and mine in whose else {tag for tag in whose if counts[tag] == most}
        found = [at for at, tag in zip(places, whose, strict=True) if tag in given]
        return found[(key >> 44) % len(found)]

    def close(self) -> None:
        """Let go of the file."""
        if self._map is not None:
            self._map.close()
            self._map = None

    def _places(self, key: int) -> list[int]:
        home = key >> _TAG_BITS + 1
        return [(home + step) % self._slots * _SLOT.size for step in range(_WINDOW)]

    def _table(self) -> mmap.mmap | None:
        if self._map is None and not self.failed:
            try:
                self._map = self._opened()
            except (OSError, ValueError) as error:
                self.failed = str(error)
        return self._map

    def _opened(self) -> mmap.mmap:
        size = self._slots * _SLOT.size
        if self._path is None:
            return mmap.mmap(-1, size)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(descriptor).st_size != size:
                os.ftruncate(descriptor, size)
            # All of it now: a page that a full disk has no room for kills whoever writes to it.
            os.posix_fallocate(descriptor, 0, size)
            return mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)


def key_of(tenant: str, name: str) -> int:
    """What `name` of `tenant` stands under: a hash of both, with the tenant's tag in bits 1 to 12, where `Pins` finds it again; odd, and so never 0."""
    text = f"{tenant}\0{name}".encode("utf-8", "surrogatepass")
    tag = xxh3_64_intdigest(tenant.encode("utf-8", "surrogatepass")) & _TAGS
    return (xxh3_64_intdigest(text) >> _TAG_BITS + 1 << _TAG_BITS + 1) | tag << 1 | 1


def _check(epoch: int, share: int, arm: int) -> int:
    return (epoch * 31 + share * 7 + arm + 1) & 0xFF


def pinned(pins: Pins, assigner: Assigner, tenant: str, about: str, drawn: Assignment) -> Assignment:
    """The arm that `about` (a unit or a conversation of `tenant`) was given first, with that epoch and share; `drawn` if it is new.

    An arm that gets no traffic any more keeps nobody.
    """
    if drawn.epoch == UNEXPOSED:
        return drawn
    entry = assigner.entry
    key = key_of(tenant, f"{entry.name}\0{entry.sticky}\0{about}")
    pin = pins.find(key)
    if pin is not None and pin.epoch <= entry.epoch and pin.arm < len(entry.arms):
        arm = entry.arms[pin.arm]
        if assigner.serves(arm.name):
            return Assignment(arm, pin.share, pin.epoch)
    pins.keep(key, Pin(assigner.place_of(drawn.arm.name), drawn.epoch, drawn.propensity))
    return drawn
