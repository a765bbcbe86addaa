"""Which questions were answered, by what they mean: vectors and marks beside the keys of their answers. Times are handed in.

A shelf holds the questions of one tenant in one context: the same weights, policy, parameters, system prompt and earlier turns. The search
goes over all of a shelf by sketches (the signs of the vector, Charikar 2002: near vectors share most of them), and over the best by
the vectors themselves.
"""

from __future__ import annotations

import heapq
from array import array
from collections import OrderedDict
from operator import mul

import msgspec

from penstock.routing.agreement import Marks, agree

CANDIDATES = 12  # of a shelf, that are compared by their vectors


class Question(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A question as it is kept: the vector has the length 1."""

    vector: array[float]
    sketch: int
    marks: Marks


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A question that has an answer for another one: the answer's key, and the cosine."""

    key: bytes
    similarity: float


def question(vector: array[float], marks: Marks) -> Question | None:
    """The question with this vector, which is given the length 1; None if it has none."""
    length = sum(map(mul, vector, vector)) ** 0.5
    if not 0.0 < length < float("inf"):
        return None
    if abs(length - 1.0) > 1e-4:
        vector = array("f", [number / length for number in vector])
    return Question(vector=vector, sketch=sketch(vector), marks=marks)


def sketch(vector: array[float]) -> int:
    """One bit for each number: whether it is above zero."""
    return int("".join(["1" if number > 0 else "0" for number in vector]), 2)


class Shelf:
    """The questions of one context, the oldest of them leaving first.

    Attributes:
        after: up to where what others keep has been read; for the shared cache.
    """

    __slots__ = ("_rows", "after")

    def __init__(self) -> None:
        self.after = ""
        self._rows: OrderedDict[bytes, tuple[int, Question, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, key: bytes, asked: Question, expires: float) -> None:
        """Keeps the question whose answer is under `key`."""
        self._rows[key] = (hash(asked.marks.facts), asked, expires)
        self._rows.move_to_end(key)

    def drop(self, key: bytes) -> None:
        """Forgets the question whose answer is under `key`."""
        self._rows.pop(key, None)

    def trim(self, most: int) -> int:
        """Forgets the oldest until `most` are left; how many it forgot."""
        over = max(0, len(self._rows) - most)
        for _ in range(over):
            self._rows.popitem(last=False)
        return over

    def find(self, asked: Question, threshold: float, now: float) -> tuple[Found | None, str]:
        """The nearest question at or above the threshold that states the same facts, and how the search ended: hit, far, differs or empty."""
        facts = hash(asked.marks.facts)
        bits, width = asked.sketch, len(asked.vector)
        near = [
            ((bits ^ kept.sketch).bit_count(), key)
            for key, (same, kept, expires) in self._rows.items()
            if same == facts and now < expires and len(kept.vector) == width
        ]
        best: list[tuple[float, bytes, Question]] = []
        for _, key in heapq.nsmallest(CANDIDATES, near):
            kept = self._rows[key][1]
            similarity = sum(map(mul, asked.vector, kept.vector))
            if similarity >= threshold:
                best.append((similarity, key, kept))
        for similarity, key, kept in sorted(best, key=lambda one: -one[0]):
            if agree(kept.marks, asked.marks):
                return Found(key=key, similarity=min(1.0, similarity)), "hit"
        return None, "differs" if best else "far" if near else "empty"


class Shelves:
    """All shelves of one worker: the least recently used leave when there are more than `most` questions."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._shelves: OrderedDict[bytes, Shelf] = OrderedDict()
        self.questions = 0

    def get(self, name: bytes) -> Shelf | None:
        """The shelf of this name, if there is one; it was used now."""
        shelf = self._shelves.get(name)
        if shelf is not None:
            self._shelves.move_to_end(name)
        return shelf

    def put(self, name: bytes, key: bytes, asked: Question, expires: float, most: int) -> Shelf:
        """Keeps a question on the shelf `name`, which holds at most `most`; that shelf."""
        shelf = self.opened(name)
        before = len(shelf)
        shelf.put(key, asked, expires)
        shelf.trim(most)
        self.questions += len(shelf) - before
        while self.questions > self._most and len(self._shelves) > 1:
            _, oldest = self._shelves.popitem(last=False)
            self.questions -= len(oldest)
        if self.questions > self._most:
            self.questions -= shelf.trim(self._most)
        return shelf

    def opened(self, name: bytes) -> Shelf:
        """The shelf of this name, made if there is none."""
        shelf = self._shelves.setdefault(name, Shelf())
        self._shelves.move_to_end(name)
        while len(self._shelves) > self._most:
            _, oldest = self._shelves.popitem(last=False)
            self.questions -= len(oldest)
        return shelf

    def drop(self, name: bytes, key: bytes) -> None:
        """Forgets the question on the shelf `name` whose answer is under `key`."""
        shelf = self._shelves.get(name)
        if shelf is not None:
            before = len(shelf)
            shelf.drop(key)
            self.questions -= before - len(shelf)
