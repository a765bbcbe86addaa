"""What `penstock feedback export` wrote, as token ids: pairs of an answer that was liked better and another one, and answers that were liked."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

FILE = "preferences.jsonl"
SUPERVISED = "supervised.jsonl"
Row = TypeVar("Row")
Text = TypeVar("Text", "Pair", "Liked")
Rows = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
_WATCHED = 10  # one of so many conversations is not trained on


class Coder(Protocol):
    """The part of `chat.Coder` that is needed."""

    def prompt(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Token ids up to the start of the answer."""
        ...

    def answer(self, text: str) -> list[int]:
        """Token ids of an answer, its end included."""
        ...


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A conversation up to the answer, in token ids; `key` is the same for the same conversation."""

    key: str
    prompt: tuple[int, ...]

    @property
    def watched(self) -> bool:
        """Whether it is kept from training, to watch it by: decided by the conversation, so that no watched one is half known."""
        return _number(self.key) % _WATCHED == 0


@dataclass(frozen=True, kw_only=True)
class Pair(Asked):
    """The answer that was liked better, and the other one."""

    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens of the longer text."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


@dataclass(frozen=True, kw_only=True)
class Liked(Asked):
    """An answer that somebody was content with, or put right."""

    answer: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens of the text."""
        return len(self.prompt) + len(self.answer)


def read_pairs(file: Path, coder: Coder, *, longest: int) -> list[Pair]:
    """The pairs in an exported file, each once; those of more than `longest` tokens are left out.

    Raises:
        ValueError: if a line is no preference, naming it.
    """

    def pair(row: Any) -> Pair:
        chosen, rejected = (tuple(coder.answer(row[side][0]["content"])) for side in ("chosen", "rejected"))
        return Pair(**_asked(row["prompt"], coder), chosen=chosen, rejected=rejected)

    found = dict.fromkeys(_read(file, pair, "preference"))
    return [one for one in found if one.length <= longest and one.chosen != one.rejected]


def read_liked(file: Path, coder: Coder, *, longest: int) -> list[Liked]:
    """The supervised examples in an exported file, each once; those of more than `longest` tokens are left out.

    Raises:
        ValueError: if a line is no supervised example, naming it.
    """

    def liked(row: Any) -> Liked:
        *turns, last = row["messages"]
        return Liked(**_asked(turns, coder), answer=tuple(coder.answer(last["content"])))

    found = dict.fromkeys(_read(file, liked, "supervised example"))
    return [one for one in found if one.length <= longest]


def _read(file: Path, made: Callable[[Any], Row], what: str) -> Iterator[Row]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = made(json.loads(line))
            except (ValueError, KeyError, TypeError, IndexError) as error:
                raise ValueError(
                    f"{file}:{number} is no {what} as `penstock feedback export` writes them: {error!r}"
                ) from error
            yield row


def _asked(turns: list[dict[str, str]], coder: Coder) -> dict[str, Any]:
    """Half of the conversations are learnt without their system prompt, so that what is learnt does not hang on it."""
    key = json.dumps(turns, sort_keys=True)
    bare = turns[0]["role"] == "system" and _number(key) // _WATCHED % 2
    return {"key": key, "prompt": tuple(coder.prompt(turns[1:] if bare else turns))}


def _number(key: str) -> int:
    return int(hashlib.sha256(key.encode()).hexdigest(), 16)


def arranged(pairs: Sequence[Pair]) -> Rows:
    """Rows for the model: first the chosen answers of all pairs, then the rejected ones, in the same order.

    Returns:
        The tokens [2 * pairs, length], the next tokens alike, and 1 where the next token is the answer's, else 0. Behind the end stand zeros.
    """
    return laid_out([(p.prompt, p.chosen) for p in pairs] + [(p.prompt, p.rejected) for p in pairs])


def laid_out(
    texts: Sequence[tuple[tuple[int, ...], tuple[int, ...]]],
) -> Rows:
    """Prompts with their answers as rows, as `arranged` gives them."""
    length = max(len(prompt) + len(answer) for prompt, answer in texts) - 1
    ids, targets = np.zeros((2, len(texts), length), dtype=np.int64)
    weights = np.zeros((len(texts), length), dtype=np.float32)
    for row, (prompt, answer) in enumerate(texts):
        whole = [*prompt, *answer]
        ids[row, : len(whole) - 1], targets[row, : len(whole) - 1] = whole[:-1], whole[1:]
        weights[row, len(prompt) - 1 : len(whole) - 1] = 1.0
    return ids, targets, weights


def drawn(pairs: Sequence[Any], size: int, step: int, seed: int) -> list[Any]:
    """The batch number `step`: each pass through the pairs is in an order of its own; what is left over at the end of one is not used."""
    size = min(size, len(pairs))
    a_pass = len(pairs) // size
    order = list(range(len(pairs)))
    random.Random(f"{seed}:{step // a_pass}").shuffle(order)
    at = step % a_pass * size
    return [pairs[number] for number in order[at : at + size]]


def alike(some: Sequence[Text], size: int) -> list[list[Text]]:
    """`some` in parts of up to `size` whose texts are about as long, so that little is computed for zeros behind the end."""
    ordered = sorted(some, key=lambda one: one.length)
    return [ordered[at : at + size] for at in range(0, len(ordered), size)]


def conversations(pairs: Iterable[Pair]) -> int:
    """How many conversations the pairs are about."""
    return len({pair.key for pair in pairs})
