"""The slots that keys stand in, in files and wherever they are handed on: `docs/reference/journal-format.md` describes them."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from blake3 import blake3
from crc32c import crc32c

from penstock.journal.masterkey import WRAPPED_BYTES

LIVING, DEAD = b"PSK1", b"PSKx"
# magic, subject, tenant, id of the key, when it was made (or destroyed)
HEAD = struct.Struct("<4s16s8s16sd")
SLOT_BYTES = HEAD.size + WRAPPED_BYTES + 4  # and the CRC-32C of all before
SUBJECT_AT, TENANT_AT, KEY_AT = 4, 20, 28


class Slot(NamedTuple):
    """A slot's content. `wrapped` is empty if the key was destroyed; `head` is what a wrapped key is bound to."""

    subject: bytes  # hash
    tenant: bytes  # hash
    id: bytes
    at: float  # when it was made, or destroyed; Unix seconds
    wrapped: bytes
    head: bytes


def hash_of_subject(tenant: str, subject: str) -> bytes:
    """What a subject's slots are found by, 16 bytes."""
    digest: bytes = blake3(f"{tenant}\0{subject}".encode()).digest(16)
    return digest


def hash_of_tenant(tenant: str) -> bytes:
    """What a tenant's slots are found by, 8 bytes."""
    digest: bytes = blake3(tenant.encode()).digest(8)
    return digest


def find_slots(data: bytes, wanted: bytes, offset: int) -> Iterator[int]:
    """Where the whole slots of `data` begin that hold `wanted` at `offset`, in their order."""
    found = data.find(wanted)
    while found >= 0:
        at = found - offset
        body = data[at : at + SLOT_BYTES] if at >= 0 else b""
        if len(body) == SLOT_BYTES and is_slot(body):
            yield at
        found = data.find(wanted, found + 1)


def is_slot(body: bytes) -> bool:
    """Whether these bytes are a slot, whole and unharmed."""
    return (
        len(body) == SLOT_BYTES
        and body[:4] in {LIVING, DEAD}
        and crc32c(body[:-4]) == int.from_bytes(body[-4:], "little")
    )


def read_slot(body: bytes) -> Slot:
    """The content of a slot."""
    magic, subject, tenant, name, at = HEAD.unpack_from(body)
    wrapped = b"" if magic == DEAD else body[HEAD.size : HEAD.size + WRAPPED_BYTES]
    return Slot(subject, tenant, name, at, wrapped, body[: HEAD.size])


def living_slot(head: bytes, wrapped: bytes) -> bytes:
    """The slot of a key; `head` begins with `LIVING`."""
    body = head + wrapped
    return body + crc32c(body).to_bytes(4, "little")


def tombstone(subject: bytes, tenant: bytes, name: bytes, at: float) -> bytes:
    """The slot of the key `name` that was destroyed `at` (Unix seconds): as long as a key's, and of its key nothing is left."""
    body = HEAD.pack(DEAD, subject, tenant, name, at) + bytes(WRAPPED_BYTES)
    return body + crc32c(body).to_bytes(4, "little")
