"""Changes of state as control tells them to the shipper: what goes out of an event of the audit trail, and nothing else of it."""

from typing import Literal

import msgspec

EventOutcome = Literal["success", "failure", "unknown"]


class StateEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change of state: of configuration, of what is deployed, of a process, of an alert."""

    id: str  # the same each time that it is told, another in each installation
    sequence: int  # grows by commit
    at: float  # Unix seconds
    action: str  # noun.verb
    subject: str
    outcome: EventOutcome = "success"
    principal: str = ""
    key: str = ""  # the id of the key that was shown
    tenant: str = ""  # that it is about, or whose key did it
    system: bool = False  # Penstock did it by itself
    before: str = ""  # digest of what stood there
    after: str = ""  # digest of what stands there now
    reason: str = ""
    restarts: int = 0
    facts: dict[str, str] = {}  # by name, see `FACTS`


class StateEvents(msgspec.Struct, frozen=True, kw_only=True):
    """Events in order of their sequences, and the newest sequence that there is."""

    events: tuple[StateEvent, ...]
    last: int


# What of an event's detail goes out as it is: names, labels, ids and states, nothing that could be secret or that users wrote.
FACTS = frozenset(
    {
        "alert",
        "arm",
        "build",
        "digest",
        "engine",
        "environment",
        "evaluation",
        "experiment",
        "label",
        "kind",
        "number",
        "owner",
        "pipeline",
        "pool",
        "precision",
        "process",
        "replica",
        "revision",
        "serving",
        "severity",
        "signer",
        "state",
        "step",
        "worker",
    }
)
REASONS = ("reason", "reasons", "detail", "error", "summary", "last_exit")  # texts of operators and of the program
LONGEST_REASON = 1000
