"""What the console reads of evaluators."""

import msgspec


class CoverageRow(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the answers of one arm that an evaluator drew."""

    experiment: str = ""
    arm: str = ""
    drawn: int = 0
    told: int = 0
    ties: int = 0
    disagreement: float | None = None
    results: dict[str, int] = {}


class EvaluatorTold(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluator, with what it drew of one experiment; calls and cost are of all it did."""

    evaluator: str
    method: str = ""
    event: str = ""
    share: float = 1.0
    running: bool = False
    held: str = ""
    behind_s: float = 0.0
    calls: int = 0
    errors: int = 0
    cost_usd: float = 0.0
    coverage: tuple[CoverageRow, ...] = ()


class EvaluatorsTold(msgspec.Struct, frozen=True, kw_only=True):
    """Those that look at one experiment."""

    evaluators: tuple[EvaluatorTold, ...] = ()
