"""A cause: one thing that may be wrong, how likely it is what is wrong, and what to do next."""

from typing import Literal

import msgspec


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """One of them.

    Attributes:
        name: stable, snake_case: what kind of fault it is.
        subject: what has it: a process, a pool, a tenant, a reader.
        state: `wrong` if requests or records suffer, `warning` if they will or may.
        likelihood: between 0 and 1: how sure the evidence makes it that this is a cause and no consequence. It orders; it is no probability.
        says: a sentence.
        evidence: what was seen, in sentences.
        command: the next step; a command line where there is one.
        runbook: the page that tells more, below docs/; "" if there is none.
        follows: the name and subject of the cause that explains this one; "" if it stands for itself.
    """

    name: str
    subject: str
    state: Literal["wrong", "warning"]
    likelihood: float
    says: str
    evidence: tuple[str, ...] = ()
    command: str = ""
    runbook: str = ""
    follows: str = ""
