"""Texts of feedback and reports: sealed like content, under a key for the one request that they are about.

Whose the request is only its own record says, which the gateway that takes the feedback may never have seen. So the key belongs to the
request; control, which sees both records, destroys it with the keys of the request's subject.
"""

from typing import Protocol

import msgspec

from penstock.core.exchange import Content, Observation
from penstock.journal.keystore import Keystore
from penstock.journal.reading import Opened, open_sealed
from penstock.journal.sealing import Messages, Replies


class Sealer(Protocol):
    """What seals: `journal.vault.Vault`."""

    def seal(
        self, tenant: str, subject: str, record: str, messages: Messages, replies: Replies
    ) -> tuple[str, bytes] | None:
        """The key's id and the sealed bytes; None if it cannot be done."""


def subject_of_request(request: str) -> str:
    """The subject under whose key the texts stand that are about `request`."""
    return f"request/{request}"


def seal_texts(sealer: Sealer, observation: Observation, *, masked: bool) -> Observation | None:
    """`observation` with its texts sealed, and their lengths beside; None if that cannot be done."""
    said = [("text", observation.text), ("corrected", observation.corrected)]
    subject = subject_of_request(observation.request)
    sealed = sealer.seal(observation.tenant, subject, _record(observation), [one for one in said if one[1]], [])
    if sealed is None:
        return None
    return msgspec.structs.replace(
        observation,
        text="",
        corrected="",
        content=Content(*sealed, masked),
        text_chars=len(observation.text),
        corrected_chars=len(observation.corrected),
    )


def open_texts(keys: Keystore, observation: Observation) -> Opened:
    """The texts of `observation`, in `told` as `text` and `corrected`, or why they cannot be read. Those that were never sealed are told too.

    Raises:
        OSError: if the keys cannot be read.
    """
    if observation.content is None:
        if not observation.text and not observation.corrected:
            return Opened("none", "It came without a text.", {})
        return Opened("readable", "", {"text": observation.text, "corrected": observation.corrected})
    opened = open_sealed(keys, observation.tenant, _record(observation), observation.content)
    if opened.state != "readable":
        return opened
    about = {name: opened.told[name] for name in ("key", "masked")}
    texts = {one["role"]: one["text"] for one in opened.told["messages"]}
    return Opened("readable", "", about | {"text": "", "corrected": ""} | texts)


def with_texts(keys: Keystore, observation: Observation) -> Observation:
    """`observation` with its texts, as far as they can be read.

    Raises:
        OSError: if the keys cannot be read.
    """
    if observation.content is None:
        return observation
    told = open_texts(keys, observation).told
    return msgspec.structs.replace(observation, text=told.get("text", ""), corrected=told.get("corrected", ""))


def _record(observation: Observation) -> str:
    """What a ciphertext is bound to beside its tenant."""
    return f"{observation.request}/{observation.id}"
