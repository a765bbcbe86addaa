"""What `penstock feedback export` wrote, as pairs of token ids: one conversation, the answer that was liked better, the other one."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

FILE = "preferences.jsonl"
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
class Pair:
    """Token ids; `key` is the same for the same conversation."""

    key: str
    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    @property
    def watched(self) -> bool:
        """Whether it is kept from training, to watch it by: decided by the conversation, so that no watched one is half known."""
        return int(hashlib.sha256(self.key.encode()).hexdigest(), 16) % _WATCHED == 0


def read_pairs(file: Path, coder: Coder, *, longest: int) -> list[Pair]:
    """The pairs in an exported file, each once; those of more than `longest` tokens are left out.

    Raises:
        ValueError: if a line is no preference, naming it.
    """
    found: dict[Pair, None] = {}
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                key = json.dumps(row["prompt"], sort_keys=True)
                prompt = tuple(coder.prompt(row["prompt"]))
                chosen, rejected = (tuple(coder.answer(row[side][0]["content"])) for side in ("chosen", "rejected"))
            except (ValueError, KeyError, TypeError, IndexError) as error:
                raise ValueError(
                    f"{file}:{number} is no preference as `penstock feedback export` writes them: {error!r}"
                ) from error
            if len(prompt) + max(len(chosen), len(rejected)) <= longest and chosen != rejected:
                found[Pair(key=key, prompt=prompt, chosen=chosen, rejected=rejected)] = None
    return list(found)


def arranged(pairs: Sequence[Pair]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Rows for the model: first the chosen answers of all pairs, then the rejected ones, in the same order.

    Returns:
        The tokens [2 * pairs, length], the next tokens alike, and 1 where the next token is the answer's, else 0. Behind the end stand zeros.
    """
    texts = [
        (p.prompt, answer) for answers in ("chosen", "rejected") for p in pairs for answer in [getattr(p, answers)]
    ]
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


def conversations(pairs: Iterable[Pair]) -> int:
    """How many conversations the pairs are about."""
    return len({pair.key for pair in pairs})
