"""One score: by what an evaluator's spec says."""

from penstock.control.evaluators.ask import Asker, NotAnswered
from penstock.control.evaluators.work import Work
from penstock.control.specs.evaluator import EvaluatorSpec
from penstock.experiments.answer_rules import AnswerRules, score_by_rules
from penstock.experiments.judge_words import ask_grade, ask_which, both_orders, grade_in, letter_in
from penstock.experiments.references import ReferenceSet
from penstock.experiments.scoring import Score, cosine
from penstock.experiments.toxic_words import WEIGHTS, lexicon, score_by_words

_MOST_CHARACTERS = 8192  # of a text whose vector is asked for
_LETTER_TOKENS, _GRADE_TOKENS = 4, 8


class Scorer:
    """Scores answers as `spec` says."""

    def __init__(self, spec: EvaluatorSpec, references: ReferenceSet | None, asker: Asker | None) -> None:
        """`references` and `asker` are there where the spec needs them."""
        self._spec = spec
        self._references = references
        self._asker = asker
        self._rules: AnswerRules | None = None if spec.rules is None else spec.rules.rules()
        toxic = spec.toxic
        self._words = {} if toxic is None else lexicon(toxic.more, WEIGHTS if toxic.built_in else {})

    async def score(self, work: Work) -> Score:
        """What the answer is worth.

        Raises:
            Held: if the model that is needed cannot be asked for now.
        """
        if self._rules is not None:
            return score_by_rules(self._rules, work.answer)
        if self._references is not None:
            return self._references.score(work.text.question, work.answer)
        if self._words:
            return score_by_words(self._words, work.answer)
        if self._asker is None:
            return Score("failed")
        try:
            return await self._asked(self._asker, work)
        except NotAnswered:
            return Score("failed")

    async def _asked(self, asker: Asker, work: Work) -> Score:
        spec = self._spec
        if spec.compare is not None and work.other is not None:
            if work.answer.strip() == work.other.strip():
                return Score("identical", 0.5)
            letters = []
            for pair in ((work.answer, work.other), (work.other, work.answer)):
                messages = ask_which(work.text.request, *pair, spec.compare.criteria)
                letters.append(letter_in(await asker.chat(messages, _LETTER_TOKENS)))
            return both_orders(letters)
        if spec.judge is not None:
            judge = spec.judge
            messages = ask_grade(work.text.request, work.answer, judge.rubric, judge.low, judge.high)
            grade = grade_in(await asker.chat(messages, _GRADE_TOKENS), judge.low, judge.high)
            return Score("unreadable") if grade is None else Score("scored", grade)
        texts = [text[:_MOST_CHARACTERS] for text in (work.text.question, work.answer)]
        if not all(text.strip() for text in texts):
            return Score("no_content")
        near = cosine(*await asker.vectors(texts))
        return Score("unreadable") if near is None else Score("scored", near)
