"""What one worker's running requests hold of lasting limits, where its successor finds it if the worker is killed.

Tokens and requests are free again after a minute; money reserved for a day or a month by a request that died with its process would be
missing for as long. Each amount stands in a file mapped into memory, so that it outlives the process at the cost of a store, and the next
worker of the same name hands it back to the ledger: the client was told nothing that could be billed. What is written after a restart
of the machine is not believed, because the disk may have kept an older state.
"""

import mmap
import os
import struct
from pathlib import Path

from penstock.access.register import Return

_MAGIC = b"PENSLATE1"
_HEAD = 64
_RECORD = 384
_RECORDS = 4096
_FIXED = struct.Struct("<qqHH")  # amount, slot, resource, length of the scope that follows
_AMOUNT = struct.Struct("<q")
_MOST_SCOPE = _RECORD - _FIXED.size


class Slate:
    """The file of one worker. There must be one process at most that has it open, which the journal's lock sees to.

    Attributes:
        left: what the predecessor's requests still held when it was killed.
    """

    def __init__(self, path: Path, boot: str) -> None:
        """Open the file, made if need be; `boot` names this run of the machine, "" if nobody knows.

        Raises:
            OSError: if that cannot be.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            size = _HEAD + _RECORD * _RECORDS
            whole = os.fstat(descriptor).st_size == size
            os.ftruncate(descriptor, size)
            self._map = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        head = _MAGIC + boot.encode()[: _HEAD - len(_MAGIC)]
        trusted = whole and bool(boot) and self._map[: len(head)] == head
        self.left = self._read() if trusted else []
        self._map[:] = bytes(len(self._map))
        self._map[: len(head)] = head
        self._places: dict[tuple[str, int, int], int] = {}
        self._free = list(range(_HEAD, len(self._map), _RECORD))[::-1]

    def add(self, scope: str, resource: int, slot: int, amount: int) -> None:
        """A request holds `amount`. What finds no place is not noted, so it counts as spent if the worker is killed."""
        at = self._places.get((scope, resource, slot))
        if at is None:
            name = scope.encode()
            if not self._free or len(name) > _MOST_SCOPE:
                return
            at = self._places[scope, resource, slot] = self._free.pop()
            _FIXED.pack_into(self._map, at, 0, slot, resource, len(name))
            self._map[at + _FIXED.size : at + _FIXED.size + len(name)] = name
        _AMOUNT.pack_into(self._map, at, _AMOUNT.unpack_from(self._map, at)[0] + amount)

    def take(self, scope: str, resource: int, slot: int, amount: int) -> None:
        """It holds it no more."""
        at = self._places.get((scope, resource, slot))
        if at is None:
            return
        rest = _AMOUNT.unpack_from(self._map, at)[0] - amount
        _AMOUNT.pack_into(self._map, at, max(0, rest))
        if rest <= 0:
            del self._places[scope, resource, slot]
            self._free.append(at)

    def close(self) -> None:
        """Let go of the file; what stands in it is found by the next."""
        self._map.close()

    def _read(self) -> list[Return]:
        found: list[Return] = []
        for at in range(_HEAD, len(self._map), _RECORD):
            amount, slot, resource, length = _FIXED.unpack_from(self._map, at)
            if amount > 0:
                scope = self._map[at + _FIXED.size : at + _FIXED.size + length].decode()
                found.append(Return(scope, resource, slot, amount))
        return found


def boot_of_this_machine() -> str:
    """What names this run of the machine; "" where it cannot be had."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
