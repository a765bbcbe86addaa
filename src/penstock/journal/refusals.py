"""What a sink will never take: found one by one, written to a file beside the offsets, and counted."""

import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from penstock.core.errors import UpstreamFailed

_Item = TypeVar("_Item")

DEAD_LETTER_BYTES = 64 * 1024 * 1024
_MANY = 8  # records that are all refused speak against the sink


class Tally:
    """What a sink has done beside passing records on, since the process started."""

    __slots__ = ("dead", "retried", "unsampled")

    def __init__(self) -> None:
        self.dead = 0  # records that were refused for good
        self.retried = 0  # records that were put off by the sink, and sent again
        self.unsampled = 0  # requests that leave no trace


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One refused record."""

    id: str
    reason: str
    record: msgspec.Raw  # JSON, as it was to be sent or as it is in the journal; without content


class DeadLetters:
    """The file of one reader, one JSON document a line; a repeat of a batch repeats its lines, so tell them apart by `id`.

    At `limit` bytes the file becomes `….1`, and the one that had this name goes.
    """

    def __init__(self, path: Path, *, limit: int = DEAD_LETTER_BYTES) -> None:
        self.path = path
        self._limit = limit

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Append, through to the disk.

        Raises:
            OSError: if the disk refuses.
        """
        if not letters:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size >= self._limit:
            self.path.replace(self.path.with_name(f"{self.path.name}.1"))
        with self.path.open("ab") as file:
            file.write(b"".join(msgspec.json.encode(letter) + b"\n" for letter in letters))
            file.flush()
            os.fsync(file.fileno())


def bury(letters: Sequence[DeadLetter], offered: int, name: str, file: DeadLetters, tally: Tally) -> None:
    """Write the refused ones of `offered` records to `file`, and count them.

    Raises:
        UpstreamFailed: if the sink refused all of many: then it is set up wrongly, and the records wait until it is not.
        OSError: if the disk refuses.
    """
    if len(letters) == offered >= _MANY:
        raise UpstreamFailed(f"{name} refuses all of {offered} records: {letters[0].reason[:500]}")
    file.write(letters)
    tally.dead += len(letters)


async def in_halves(
    items: Sequence[_Item], offer: Callable[[Sequence[_Item]], Awaitable[str]]
) -> list[tuple[_Item, str]]:
    """Offer `items`; halve what is refused until single ones are. Those come back with the reason.

    `offer` answers with the reason for which it refuses the whole, or with nothing.
    """
    refused: list[tuple[_Item, str]] = []
    waiting = [items] if items else []
    while waiting:
        part = waiting.pop()
        reason = await offer(part)
        if not reason:
            continue
        if len(part) == 1:
            refused.append((part[0], reason))
        else:
            half = len(part) // 2
            waiting += (part[half:], part[:half])
    return refused
