"""What the console reads of the API's answers about gates."""

from typing import Any

import msgspec

from penstock.registry.gates import Outcome


class Gates(msgspec.Struct, frozen=True, kw_only=True):
    """What an environment asks of a version, and whether it is given."""

    model: str
    label: str
    digest: str
    environment: str
    declared: bool
    passed: bool
    under_way: tuple[str, ...] = ()
    outcomes: tuple[Outcome, ...] = ()


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation; times are Unix seconds."""

    id: str
    kind: str
    model: str
    label: str
    digest: str
    precision: str
    build: str
    suite: str
    suite_digest: str
    engine_digest: str
    state: str
    detail: str
    total: int
    done: int
    settings: dict[str, Any] = {}
    result: dict[str, Any] = {}
    requested_by: str = ""
    replay_of: str | None = None
    created_at: float = 0.0
    finished_at: float | None = None

    @property
    def what(self) -> str:
        """The suite, or what else it is."""
        return self.suite or self.kind

    @property
    def share(self) -> float:
        """How much of it is done."""
        return self.done / self.total if self.total else 1.0


class AnsweredItem(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one item."""

    item: str
    right: bool | None = None
    value: float | None = None
    answer: str = ""
    why: str = ""
    seconds: float = 0.0
