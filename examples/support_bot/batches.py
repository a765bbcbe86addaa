"""Rows of fixed length, packed with whole conversations that do not see each other."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from examples.support_bot.chat import Coder
from examples.support_bot.generator import Corpus

Document = tuple[list[int], list[float]]


class Packer:
    """Makes one batch after another; batch `step` depends on the seed, the step and what the one before left over."""

    def __init__(self, corpus: Corpus, coder: Coder, *, rows: int, length: int, seed: int) -> None:
        self._corpus, self._coder, self._rows, self._length, self._seed = corpus, coder, rows, length, seed
        self._left: list[Document] = []

    def batch(
        self, step: int, copying: float
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """Ids [rows, length + 1], weights alike, positions, and the number of the document that each token is in (0: padding).

        `copying` is the share of documents that are pure copy tasks.
        """
        rng = random.Random(f"{self._seed}:{step}")
        room = [self._length + 1] * self._rows
        packed: list[list[Document]] = [[] for _ in range(self._rows)]
        misses, waiting, left = 0, self._left, []
        while misses < 6:
            document = waiting.pop() if waiting else self._document(rng, copying)
            size = len(document[0])
            if size > self._length + 1:
                continue
            row = min((row for row in range(self._rows) if room[row] >= size), key=lambda at: room[at], default=None)
            if row is None:
                misses += 1
                left.append(document)
                continue
            room[row] -= size
            packed[row].append(document)
        self._left = left
        return self._arrays(packed)

    def _document(self, rng: random.Random, copying: float) -> Document:
        if rng.random() < copying:
            return self._copy_task(rng)
        return self._coder.weighted(self._corpus.conversation(rng).messages(), rng)

    def _copy_task(self, rng: random.Random) -> Document:
        pools = self._corpus.pools
        piece = pools.order(rng) if rng.random() < 0.65 else pools.product(rng)
        if rng.random() < 0.4:
            return self._coder.copied(piece, piece)
        turn = self._corpus.order_turn(rng.choice(self._corpus.shop.order_intents), rng)
        if rng.random() < 0.5 and self._corpus.allowed(turn):
            return self._coder.copied(turn.question, turn.slots["order"])
        product = self._corpus.plain_turn(rng.choice(("product_info", "product_stock", "warranty")), rng)
        if not self._corpus.allowed(product):
            return self._coder.copied(piece, piece)
        return self._coder.copied(product.question, " " + product.slots["product"])

    def _arrays(
        self, packed: list[list[Document]]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        shape = (self._rows, self._length + 1)
        ids, positions, owners = (np.zeros(shape, dtype=np.int64) for _ in range(3))
        weights = np.zeros(shape, dtype=np.float32)
        for row, documents in enumerate(packed):
            at = 0
            for number, (tokens, token_weights) in enumerate(documents, start=1):
                to = at + len(tokens)
                ids[row, at:to], weights[row, at:to] = tokens, token_weights
                weights[row, at] = 0.0
                positions[row, at:to], owners[row, at:to] = np.arange(len(tokens)), number
                at = to
        return ids, weights, positions, owners
