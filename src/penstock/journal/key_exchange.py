"""A host's part in keys of several hosts: what was made here goes to control, wrapped as it is, and whom to forget comes from there.

`docs/decisions/0031-keys-of-several-hosts.md` says why. Nobody waits for it: gateways make keys in files, and one process of the host runs this.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlencode

import msgspec

from penstock.core.errors import Conflict, PenstockError, UpstreamFailed
from penstock.journal.keyfiles import FileKeystore
from penstock.journal.keyslots import DEAD, SLOT_BYTES, find_slots
from penstock.journal.whole import create_whole

_LOG = logging.getLogger("penstock.ship")
EVERY_S = 1.0
SKEW_S = 300.0  # how far clocks of hosts may be apart: keys that were made so much later are destroyed too
_PIECE = 4000  # slots of one message
_ANY = DEAD[:3]  # what all slots begin with

Ask = Callable[[bytes, str, bytes], Awaitable[tuple[int, bytes]]]  # method, path and query, body -> status, body


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """That the keys of a subject are to be destroyed which were made before `at`, or up to `SKEW_S` later. Hashes in hexadecimal digits."""

    sequence: int
    tenant: str
    subject: str = ""  # "": all of the tenant's
    at: float


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """Control's answer: the next orders, the number of the newest that it knows, and how many slots it has been handed by this host."""

    orders: tuple[Order, ...] = ()
    newest: int = 0
    slots: int = 0


class _Kept(msgspec.Struct, kw_only=True):
    """How far it has come, in `exchange.json`."""

    applied: int = 0  # orders
    at: float | None = None  # what the last of them said
    slots: int = 0  # handed over
    sizes: dict[str, int] = {}  # by file: bytes that control has
    destructions: int = -1  # that control has heard of


class KeyExchange:
    """Between one folder of keys and control.

    Attributes:
        failures: steps that failed since the process started.
        problem: what is wrong now; "" if nothing is.
    """

    def __init__(self, keys: FileKeystore, ask: Ask, name: str) -> None:
        """`name` is the host's, for people."""
        self.failures = 0
        self.problem = ""
        self._keys = keys
        self._ask = ask
        self._name = name
        self._file = keys.folder / "exchange.json"
        self._kept = self._load()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.step()
                if self.problem:
                    _LOG.info("keys: goes on")
                self.problem = ""
            except (PenstockError, OSError, msgspec.DecodeError) as error:
                self.failures += 1
                if str(error) != self.problem:
                    self.problem = str(error)
                    _LOG.warning("keys: %s", error)
            await asyncio.sleep(EVERY_S)

    async def step(self) -> None:
        """Carry out what is to be forgotten, tell so, and hand over what is new.

        Raises:
            Conflict: if control's keys have another root.
            PenstockError: if control is away.
            OSError: if the keys cannot be read or written.
        """
        while await self._obey():
            continue
        await self._hand_over()

    async def _obey(self) -> bool:
        """The next orders; whether there were any. To ask for those after N says that all up to N have been carried out."""
        kept = self._kept
        more = {"at": repr(kept.at)} if kept.applied and kept.at is not None else {}
        found = msgspec.json.decode(
            await self._asked(b"GET", "orders", b"", name=self._name, after=str(kept.applied), **more), type=Orders
        )
        if found.newest < self._kept.applied or found.slots < self._kept.slots:
            # Control was put back to an earlier day. Orders do no harm twice, nor do slots; and tombstones win over what came back there.
            self._kept = _Kept(slots=found.slots)
            return True
        self._kept.slots = found.slots
        for order in found.orders:
            subject = bytes.fromhex(order.subject) if order.subject else None
            await asyncio.to_thread(
                self._keys.destroy, bytes.fromhex(order.tenant), subject, order.at, order.at + SKEW_S
            )
            self._kept.applied, self._kept.at = order.sequence, order.at
        if found.orders:
            self._save()
        return bool(found.orders)

    async def _hand_over(self) -> None:
        destructions = self._keys.destructions
        slots, sizes = await asyncio.to_thread(self._new, destructions != self._kept.destructions)
        for start in range(0, len(slots), _PIECE):
            piece = slots[start : start + _PIECE]
            await self._asked(b"POST", "slots", b"".join(piece))
            self._kept.slots += len(piece)
        if slots or destructions != self._kept.destructions:
            self._kept.sizes, self._kept.destructions = sizes, destructions
            self._save()

    def _new(self, dead_too: bool) -> tuple[list[bytes], dict[str, int]]:
        """The slots that control has not, and how much of each file it has with them; all tombstones, if keys were destroyed meanwhile."""
        slots: list[bytes] = []
        sizes = dict(self._kept.sizes)
        for path in sorted(self._keys.folder.glob("*.keys")):
            known = sizes.get(path.name, 0)
            if dead_too and known:
                data = path.read_bytes()[:known]
                slots += [data[at : at + SLOT_BYTES] for at in find_slots(data, DEAD, 0)]
            if path.stat().st_size == known:
                continue
            with path.open("rb") as file:
                file.seek(known)
                data = file.read()
            for at in find_slots(data, _ANY, 0):
                slots.append(data[at : at + SLOT_BYTES])
                sizes[path.name] = known + at + SLOT_BYTES
        return slots, sizes

    async def _asked(self, method: bytes, what: str, body: bytes, **more: str) -> bytes:
        query = urlencode({"host": host_of(self._keys.folder), "root": self._keys.mark, **more})
        status, answer = await self._ask(method, f"/internal/v1/keys/{what}?{query}", body)
        if status == 409:
            raise Conflict(f"Control does not take this host's keys: {answer[:500].decode('utf-8', 'replace')}")
        if status != 200:
            raise UpstreamFailed(f"Control answered {status} when keys were exchanged: {answer[:200]!r}.")
        return answer

    def _load(self) -> _Kept:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=_Kept)
        except (FileNotFoundError, msgspec.DecodeError):
            return _Kept()  # all of it is handed over once more

    def _save(self) -> None:
        draft = self._file.with_suffix(f".{os.getpid()}")
        draft.write_bytes(msgspec.json.encode(self._kept))
        draft.replace(self._file)


def host_of(folder: Path) -> str:
    """The id of the host whose keys stand in `folder`, made if there is none: 16 hexadecimal digits.

    Raises:
        OSError: if it cannot be read or written.
    """
    path = folder / "host"
    if not path.exists():
        create_whole(path, secrets.token_hex(8).encode())
    return path.read_text("ascii", "replace").strip()
