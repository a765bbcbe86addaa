"""What a judging model is asked, what its reply says, and what two replies about the same pair say together.

A model that prefers whatever stands first (Zheng et al. 2023, "Judging LLM-as-a-judge with MT-Bench and Chatbot Arena", NeurIPS, section
3.3) contradicts itself when the two answers change places; then it is a tie.
"""

import re
from collections.abc import Sequence

from penstock.experiments.scoring import Score

MOST_CHARACTERS = 8192  # of the request, and of each answer
COMPARE = (
    "Two assistants answered the same request. Say which answer is more correct and more helpful. "
    "Their order and their length mean nothing. Reply with one letter: A, B, or C if neither is better."
)
_GRADE = (
    "An assistant answered a request. {rubric}\nReply with one whole number from {low} to {high}, and nothing else."
)
_NUMBER = re.compile(r"-?\d+")
_MOST_DIGITS = 20
# The letter alone, or first, or behind what models put before it; "Both" and "Cannot say" begin with a letter and name none.
_LETTER = re.compile(
    r"[\W_]*(?:(?:the )?(?:better )?(?:answer|assistant|response|choice)\b(?: is)?[\W_]*)?([abc])(?![^\W_]|['\u2019])",
    re.IGNORECASE,
)

Messages = list[dict[str, str]]


def ask_which(question: str, a: str, b: str, criteria: str = "") -> Messages:
    """The messages that ask which of two answers is better."""
    asked = f"Request:\n{question[-MOST_CHARACTERS:]}\n\nAnswer A:\n{a[:MOST_CHARACTERS]}\n\nAnswer B:\n{b[:MOST_CHARACTERS]}"
    rules = f"{COMPARE} What matters: {criteria}" if criteria else COMPARE
    return [{"role": "system", "content": rules}, {"role": "user", "content": asked}]


def ask_grade(question: str, answer: str, rubric: str, low: int, high: int) -> Messages:
    """The messages that ask for a grade of one answer."""
    asked = f"Request:\n{question[-MOST_CHARACTERS:]}\n\nAnswer:\n{answer[:MOST_CHARACTERS]}"
    rules = _GRADE.format(rubric=rubric.strip(), low=low, high=high)
    return [{"role": "system", "content": rules}, {"role": "user", "content": asked}]


def letter_in(reply: str) -> str:
    """`A`, `B` or `C`; "" if the reply does not begin with one, as in "B", "**B** is better" or "Answer: B"."""
    found = _LETTER.match(reply)
    return found.group(1).upper() if found is not None else ""


def grade_in(reply: str, low: int, high: int) -> float | None:
    """The first number of the reply, from 0 (`low`) to 1 (`high`); None if there is none, or it is no grade."""
    found = _NUMBER.search(reply)
    if found is None or len(found.group()) > _MOST_DIGITS or not low <= int(found.group()) <= high:
        return None
    return (int(found.group()) - low) / (high - low)


def both_orders(letters: Sequence[str]) -> Score:
    """What the letters say of the answer that stood first in the first question and second in the other."""
    first, second = letters
    if not first or not second:
        return Score("unreadable")
    if (first, second) == ("A", "B"):
        return Score("won", 1.0)
    if (first, second) == ("B", "A"):
        return Score("lost", 0.0)
    return Score("same" if first == second == "C" else "contradicted", 0.5)
