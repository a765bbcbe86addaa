"""The port behind which subjects' keys are kept. A subject is named by `subject_of`; keys are one tenant's."""

import math
from typing import NamedTuple, Protocol

from penstock.journal.sealing import SubjectKey


class Tombstone(NamedTuple):
    """What is left of a key that was destroyed."""

    id: str
    at: float  # when, Unix seconds


class Census(NamedTuple):
    """How many keys there are."""

    living: int
    destroyed: int


class Keystore(Protocol):
    """Keys by subject: those of one host, or of all. Several processes may use one at the same time, and any of them may be killed at any time.

    Every method may raise `OSError` or `PenstockError` if what the keys are kept in cannot be read or written.
    """

    @property
    def hash_key(self) -> bytes:
        """The key under which names of people are hashed, 32 bytes."""

    def find(self, key: str) -> SubjectKey | Tombstone | None:
        """The key with this id, what is left of it, or None if it was never here."""

    def forget(self, tenant: str, subject: str | None, now: float, *, made_before: float = math.inf) -> int:
        """Destroys the subject's keys, all of the tenant's if no subject is named, that were made before; how many were living.

        They are gone from the disk when it returns, and no process gives any of them out afterwards; `key_of` makes a new one. If it raises,
        some may be destroyed, and not all of them on the disk: asked again, it finishes.
        """

    def census(self) -> Census:
        """Counts what is there."""

    def close(self) -> None:
        """Lets go of files."""


class Keymaker(Keystore, Protocol):
    """A keystore that gateways have content sealed with: they make keys, and wait for nobody."""

    def key_of(self, tenant: str, subject: str) -> SubjectKey:
        """The subject's key; a new random one if there is none, the same for all on the host who ask at the same time."""

    @property
    def unsynced(self) -> bool:
        """Whether `sync` has anything to do."""

    def sync(self) -> None:
        """Has all keys on the disk that `key_of` gave out in this process before. May be called in another thread than the owner's."""


def subject_of(user: str, session: str) -> str:
    """The name of the subject of a request, given the keyed hashes of its `user` and session: the tenant as a whole ("") if it names neither."""
    if user:
        return f"user/{user}"
    return f"session/{session}" if session else ""
