"""What control hands to an examiner: one evaluation, or one build to make."""

from typing import Literal

import msgspec


class Vouched(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine needs to see that a build with code of its own was signed: the file that says so, the digest of what was signed, and the keys that count."""

    provenance: str
    digest: str
    keys: tuple[str, ...]


class ExaminerJob(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation, with the folders that it needs on this machine.

    Attributes:
        build: the folder that the engine loads.
        weights: of the version as it was trained; "": it has none, or none is needed.
        judge: the build that judges; "": none.
        vouched: for builds among these that bring code of their own, by their folder.
        lines: of the suite, as it was registered.
        prompts: of a smoke test, or of a measurement of speed.
        together: prompts that are asked at a time, where speed is measured.
        max_tokens: of an answer, likewise.
        total: items; of a measurement of speed its runs.
        seed: of sampling and of candidates.
        answered: items that were told already.
    """

    id: str
    kind: Literal["scan", "smoke", "suite", "speed"]
    model: str
    label: str
    build: str
    weights: str = ""
    judge: str = ""
    vouched: dict[str, Vouched] = {}
    lines: str = ""
    prompts: tuple[str, ...] = ()
    seed: int = 1
    together: int = 1
    max_tokens: int = 64
    total: int = 1
    answered: tuple[str, ...] = ()


class BuildJob(msgspec.Struct, frozen=True, kw_only=True):
    """One build to make, with the folders that it needs on this machine.

    Attributes:
        source: of the weights as they were trained, with configuration and tokenizer.
        target: where the build is written; it may be there, from an attempt that was cut off.
        toolchains: where environments of converters are made.
    """

    id: str
    model: str
    label: str
    engine: str
    precision: str
    source: str
    target: str
    toolchains: str
