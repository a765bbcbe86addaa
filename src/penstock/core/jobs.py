"""What control hands to an examiner: one evaluation to work on."""

from typing import Literal

import msgspec


class ExaminerJob(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation, with the folders that it needs on this machine.

    Attributes:
        build: the folder that the engine loads.
        weights: of the version as it was trained; "": it has none, or none is needed.
        judge: the build that judges; "": none.
        lines: of the suite, as it was registered.
        prompts: of a smoke test.
        seed: of sampling and of candidates.
        answered: items that were told already.
    """

    id: str
    kind: Literal["scan", "smoke", "suite"]
    model: str
    label: str
    build: str
    weights: str = ""
    judge: str = ""
    lines: str = ""
    prompts: tuple[str, ...] = ()
    seed: int = 1
    answered: tuple[str, ...] = ()
