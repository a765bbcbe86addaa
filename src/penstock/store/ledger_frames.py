"""What a ledger's server and its clients say to each other.

Both send frames of a 4-byte little-endian length and a msgpack list of messages: all of one loop turn together.
"""

import asyncio
from collections.abc import Sequence
from typing import cast

import msgspec

from penstock.access.register import Lease, Refusal, Return, Want

_MAX_FRAME = 64 * 1024 * 1024


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A worker's first message: its session (one process's life) and the seats it holds."""

    session: str
    seats: dict[str, int]


class Ask(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A worker wants."""

    id: int
    wants: list[Want]


class GiveBack(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A worker returns."""

    returned: list[Return]


class Granted(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The answer to an Ask: yes."""

    id: int
    leases: list[Lease]


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The answer to an Ask: no."""

    id: int
    refusal: Refusal


_encode = msgspec.msgpack.Encoder().encode
decode_up = msgspec.msgpack.Decoder(list[Hello | Ask | GiveBack]).decode
decode_down = msgspec.msgpack.Decoder(list[Granted | Refused]).decode


class Frames(asyncio.Protocol):
    """Frames in, frames out: what is sent in one loop turn goes out in one write."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses of it

    def data_received(self, data: bytes) -> None:
        """Bytes have come: take the whole frames, and drop the connection for what is none."""
        self._data += data
        while len(self._data) >= 4:
            length = int.from_bytes(self._data[:4], "little")
            if length > _MAX_FRAME:
                self._drop()
                return
            if len(self._data) < 4 + length:
                return
            payload = bytes(self._data[4 : 4 + length])
            del self._data[: 4 + length]
            try:
                self.received(payload)
            except msgspec.DecodeError:
                self._drop()
                return

    def received(self, payload: bytes) -> None:
        """Take one frame."""
        raise NotImplementedError

    def send(self, messages: Sequence[object]) -> None:
        """Write one frame."""
        if self.transport is not None and not self.transport.is_closing():
            payload = _encode(messages)
            self.transport.write(len(payload).to_bytes(4, "little") + payload)

    def _drop(self) -> None:
        if self.transport is not None:
            self.transport.abort()
