"""The ledger's books on disk: changes appended, the whole written anew when the file has grown.

A change is in the kernel before anybody hears of the grant that it records, so a killed ledger forgets nothing. A disk that refuses does
not stop the traffic: it is counted, and what was booked meanwhile is forgotten if the ledger dies too.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
from crc32c import crc32c

from penstock.access.register import Entry

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Entry]).decode
_LEAST_BYTES = 4 * 1024 * 1024


class LedgerLog:
    """One file of changes, each group framed by its length and CRC-32C. `failures` counts writes that the disk refused."""

    def __init__(self, path: Path) -> None:
        self.failures = 0
        self._path = path
        self._file = -1
        self._size = 0
        self._most = _LEAST_BYTES

    def read(self) -> list[Entry]:
        """All changes, in order, up to a torn end; the file is then written anew without the torn end, ready for more."""
        entries: list[Entry] = []
        data = self._path.read_bytes() if self._path.exists() else b""
        at = 0
        while at + 8 <= len(data):
            length = int.from_bytes(data[at : at + 4], "little")
            payload = data[at + 8 : at + 8 + length]
            if len(payload) < length or crc32c(payload) != int.from_bytes(data[at + 4 : at + 8], "little"):
                break
            entries += _decode(payload)
            at += 8 + length
        self.rewrite(entries)
        return entries

    @property
    def full(self) -> bool:
        """Whether the file is to be rewritten."""
        return self._size > self._most

    def append(self, entries: Sequence[Entry]) -> None:
        """Add changes: one write."""
        if not entries or self._file < 0:
            return
        data = _framed(entries)
        try:
            written = os.write(self._file, data)
            if written < len(data):
                os.ftruncate(self._file, self._size)
                self.failures += 1
            else:
                self._size += written
        except OSError:
            self.failures += 1

    def rewrite(self, entries: Sequence[Entry]) -> None:
        """Put a file with only `entries` in the place of the old one, whole or not at all."""
        draft = self._path.with_name(self._path.name + ".draft")
        data = _framed(entries) if entries else b""
        descriptor = -1
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
            written = 0
            while written < len(data):
                written += os.write(descriptor, data[written:])
            draft.replace(self._path)
        except OSError:
            self.failures += 1
            if descriptor >= 0:
                os.close(descriptor)
            return
        self.close()
        self._file, self._size = descriptor, len(data)
        self._most = max(_LEAST_BYTES, 2 * len(data))

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _framed(entries: Sequence[Entry]) -> bytes:
    payload = _encode(entries)
    return len(payload).to_bytes(4, "little") + crc32c(payload).to_bytes(4, "little") + payload
