"""Content that was sealed, opened through a keystore, or why it cannot be."""

from typing import Any, Literal, NamedTuple

from penstock.core.errors import Damaged
from penstock.core.exchange import Content, Exchange
from penstock.journal.content import unseal
from penstock.journal.keystore import Keystore, Tombstone
from penstock.journal.sealing import SubjectKey


class Opened(NamedTuple):
    """What can be told of a record's content; `why` is a sentence for people if it cannot be read."""

    state: Literal["none", "readable", "destroyed", "lost", "damaged"]
    why: str
    told: dict[str, Any]


def open_content(keys: Keystore, exchange: Exchange) -> Opened:
    """The content of `exchange`, or why it cannot be read.

    Raises:
        OSError: if the keys cannot be read.
    """
    content = exchange.content
    if content is None:
        return Opened("none", "No content of this request was kept: its policy says so, or it was not drawn.", {})
    return open_sealed(keys, exchange.tenant, exchange.id, content)


def open_sealed(keys: Keystore, tenant: str, record: str, content: Content) -> Opened:
    """What was sealed for the record with this id of `tenant`, or why it cannot be read.

    Raises:
        OSError: if the keys cannot be read.
    """
    about: dict[str, Any] = {"key": content.key, "masked": content.masked, "cut": content.cut}
    try:
        key = keys.find(content.key)
        if isinstance(key, SubjectKey):
            said = unseal(key, tenant, record, content)
            return Opened(
                "readable",
                "",
                about
                | {
                    "messages": [{"role": role, "text": text} for role, text in said.messages],
                    "replies": [{"index": index, "field": field, "text": text} for index, field, text in said.replies],
                },
            )
    except Damaged as error:
        return Opened("damaged", error.message, about)
    if isinstance(key, Tombstone):
        why = "The key of its subject was destroyed: nobody can read this content any more."
        return Opened("destroyed", why, about | {"destroyed_at": key.at})
    return Opened("lost", f"The key {content.key} of its subject is not in this keystore.", about)
