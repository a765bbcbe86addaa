"""The specs of `kind: Evaluator` and `kind: References`: how answers are scored after the fact."""

from typing import Annotated, Literal, Self

import msgspec
from pydantic import Field, model_validator

from penstock.control.specs.resources import Name, PlaceSpec, Spec
from penstock.experiments.answer_rules import REFUSALS, AnswerRules
from penstock.experiments.references import Reference
from penstock.experiments.toxic_words import WEIGHTS

MOST_REFERENCES = 10_000
Words = Annotated[str, Field(min_length=1, max_length=512)]
Pattern = Annotated[str, Field(min_length=1, max_length=1024)]
_Count = Annotated[int, Field(ge=0, le=10**7)]


class ReferenceSpec(Spec):
    """A question, and what a right answer to it says."""

    question: str = Field(min_length=1, max_length=4096)
    answers: list[Words] = Field(min_length=1, max_length=32)
    match: Literal["contains", "all", "exact", "number", "pattern"] = Field(
        default="contains", description="Which of `answers` a right one says, and how."
    )
    tolerance: float = Field(default=0.0, ge=0, le=1e6, description="Of `number`, by its size.")


class ReferencesSpec(Spec):
    """Questions whose right answers are known."""

    items: list[ReferenceSpec] = Field(min_length=1, max_length=MOST_REFERENCES)

    def references(self) -> tuple[Reference, ...]:
        """As the rules that score by them take them."""
        return msgspec.convert([one.model_dump() for one in self.items], tuple[Reference, ...])


class AnswerRulesSpec(Spec):
    """What an answer must be like; all that is given must hold."""

    contains: list[Words] = Field(default=[], max_length=100)
    contains_any: list[Words] = Field(default=[], max_length=1000)
    lacks: list[Words] = Field(default=[], max_length=1000)
    pattern: Pattern | None = None
    lacks_pattern: Pattern | None = None
    json_schema: dict[str, object] | None = None
    min_number: float | None = None
    max_number: float | None = None
    min_characters: _Count | None = None
    max_characters: _Count | None = None
    min_words: _Count | None = None
    max_words: _Count | None = None
    refuses: bool | None = None
    refusals: list[Pattern] = Field(default=list(REFUSALS), max_length=32)

    def rules(self) -> AnswerRules:
        """As the rules that score by them take them."""
        return msgspec.convert(self.model_dump(), AnswerRules)


class ToxicSpec(Spec):
    """Toxic words: the built-in lexicon, and more."""

    built_in: bool = Field(default=True, description=f"The {len(WEIGHTS)} English words of the built-in lexicon.")
    more: list[Words] = Field(default=[], max_length=10_000, description="Words that count 1.")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.built_in and not self.more:
            raise ValueError("without the built-in lexicon, 'more' words are needed")
        return self


class JudgeSpec(PlaceSpec):
    """A model that grades each answer by a rubric."""

    rubric: str = Field(min_length=1, max_length=8192)
    low: int = Field(default=1, ge=-1000, le=1000, description="The worst grade; told as 0.")
    high: int = Field(default=5, ge=-1000, le=1000, description="The best one; told as 1.")

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.low >= self.high:
            raise ValueError("'high' must be above 'low'")
        return self


class CompareSpec(PlaceSpec):
    """A model that says which of two answers to the same question is better, asked in both orders."""

    criteria: str = Field(default="", max_length=4096)


class RelevanceSpec(PlaceSpec):
    """An embedder, by whose vectors an answer is near to its question or not."""


class BudgetSpec(Spec):
    """What asking models may cost; beyond it answers wait, and are given up when they are too old."""

    calls_per_minute: int | None = Field(default=60, ge=1, le=10**6)
    usd_per_day: float | None = Field(default=None, ge=0, le=4e6)


_OTHERS = frozenset({"conversion", "retention", "session_length"})
METHODS = ("rules", "references", "toxic", "judge", "compare", "relevance")
_TELLS = {
    "rules": "rules",
    "references": "accuracy",
    "toxic": "toxicity",
    "judge": "judge_score",
    "compare": "win_rate",
    "relevance": "relevance",
}


class EvaluatorSpec(Spec):
    """How a share of the answers is scored, and what the score is told as."""

    rules: AnswerRulesSpec | None = None
    references: Name | None = Field(default=None, description="A References: is the answer right?")
    toxic: ToxicSpec | None = None
    judge: JudgeSpec | None = None
    compare: CompareSpec | None = None
    relevance: RelevanceSpec | None = None
    tells: Name | None = Field(
        default=None,
        description="The event's name; left out: rules, accuracy, toxicity, judge_score, win_rate, relevance.",
    )
    share: float = Field(default=1.0, gt=0, le=1, description="Of the answers, or of the questions of `compare`.")
    of: Literal["experiments", "all"] = Field(
        default="experiments", description="Requests that an experiment counts, or all."
    )
    experiments: list[Name] = Field(default=[], max_length=100, description="Left out: all.")
    routes: list[Name] = Field(default=[], max_length=100, description="Left out: all.")
    tenants: list[Name] = Field(default=[], max_length=1000, description="Left out: all.")
    in_flight: int = Field(default=4, ge=1, le=64, description="Answers that are scored at the same time.")
    timeout_s: float = Field(default=30.0, gt=0, le=600, description="Of one call of a model.")
    attempts: int = Field(default=3, ge=1, le=10, description="Calls that fail before an answer is given up.")
    look_back_s: float = Field(
        default=3600.0, ge=1, le=30 * 86400, description="Answers older than that are too late; a new one begins there."
    )
    budget: BudgetSpec = BudgetSpec()

    @model_validator(mode="after")
    def _one_method(self) -> Self:
        if sum(getattr(self, name) is not None for name in METHODS) != 1:
            raise ValueError(f"say how answers are scored: exactly one of {', '.join(METHODS)}")
        if self.tells in _OTHERS:
            raise ValueError(f"{self.tells!r} is for applications to tell: choose another name")
        if self.of == "all" and (self.experiments or self.compare is not None):
            raise ValueError("'of: all' goes with neither 'experiments' nor 'compare'")
        return self

    @property
    def method(self) -> str:
        """Which of the methods it is."""
        return next(name for name in METHODS if getattr(self, name) is not None)

    @property
    def event(self) -> str:
        """The name of the events that it tells."""
        return self.tells or _TELLS[self.method]

    @property
    def place(self) -> PlaceSpec | None:
        """What it asks; None if it asks no model."""
        return self.judge or self.compare or self.relevance
