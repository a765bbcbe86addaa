"""Content of records, opened: what `journal.sealing` has sealed."""

import msgspec
from cryptography.exceptions import InvalidTag

from penstock.core.errors import Damaged
from penstock.core.exchange import Content
from penstock.journal.sealing import NONCE_BYTES, SALT_BYTES, SubjectKey

LEAST_BYTES = SALT_BYTES + NONCE_BYTES + 16


class Said(msgspec.Struct, frozen=True, array_like=True):
    """What was said in one exchange, or of one.

    `messages` are (role, text) of the request; `replies` are (index of the choice, field, text) of the answer. Of feedback and reports there are
    messages alone, whose roles are the fields' names.
    """

    messages: tuple[tuple[str, str], ...] = ()
    replies: tuple[tuple[int, str, str], ...] = ()


_decode = msgspec.msgpack.Decoder(Said).decode


def unseal(key: SubjectKey, tenant: str, record: str, content: Content) -> Said:
    """What was sealed.

    Raises:
        Damaged: if it is not what was written for the record with this id of this tenant, under this key.
    """
    sealed = content.sealed
    if len(sealed) < LEAST_BYTES:
        raise Damaged(f"The content of {record} is cut off: it has {len(sealed)} bytes.", code="content_damaged")
    salt, nonce = sealed[:SALT_BYTES], sealed[SALT_BYTES : SALT_BYTES + NONCE_BYTES]
    try:
        plain = key.cipher(salt).decrypt(nonce, sealed[SALT_BYTES + NONCE_BYTES :], key.about(tenant, record))
        return _decode(plain)
    except (InvalidTag, msgspec.DecodeError):
        raise Damaged(
            f"The content of {record} is not what was written there: it was changed, or belongs to another record.",
            code="content_damaged",
        ) from None
