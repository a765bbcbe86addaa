"""Shelves: the nearest question of the same facts is found, and they never hold more than they may."""

import math
import random
from array import array

from hypothesis import given
from hypothesis import strategies as st

from penstock.gateway.shelves import Question, Shelf, Shelves, question
from penstock.routing.agreement import Marks, marks

PLAIN = marks("where is it")


def made(numbers: list[float], told: Marks = PLAIN) -> Question:
    found = question(array("f", numbers), told)
    assert found is not None
    return found


def near(rng: random.Random, vector: list[float], noise: float) -> list[float]:
    return [number + rng.gauss(0, noise) for number in vector]


def test_the_nearest_of_many_is_found() -> None:
    rng = random.Random(1)
    shelf = Shelf()
    centres = [[rng.gauss(0, 1) for _ in range(192)] for _ in range(400)]
    for number, centre in enumerate(centres):
        shelf.put(b"%d" % number, made(centre), 10.0)
    for number in range(0, 400, 7):
        found, how = shelf.find(made(near(rng, centres[number], 0.3)), 0.85, 0.0)
        assert how == "hit" and found is not None and found.key == b"%d" % number
        assert 0.85 <= found.similarity <= 1.0


def test_far_other_facts_and_old_ones_are_not_found() -> None:
    shelf = Shelf()
    shelf.put(b"a", made([1.0, 0.0], marks("order 4711")), 10.0)
    assert shelf.find(made([0.0, 1.0], marks("order 4711")), 0.9, 0.0) == (None, "far")
    assert shelf.find(made([1.0, 0.0], marks("order 4712")), 0.9, 0.0) == (None, "empty")
    assert shelf.find(made([1.0, 0.0], marks("return it before order 4711")), 0.9, 0.0)[0] is not None
    assert shelf.find(made([1.0, 0.0], marks("not order 4711")), 0.9, 0.0) == (None, "differs")
    assert shelf.find(made([1.0, 0.0], marks("order 4711")), 0.9, 10.0) == (None, "empty")
    assert shelf.find(made([1.0, 0.0, 0.0], marks("order 4711")), 0.9, 0.0) == (None, "empty")  # of another model


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 30), st.integers(1, 8)), max_size=80))
def test_shelves_never_hold_more_than_they_may(puts: list[tuple[int, int, int]]) -> None:
    shelves = Shelves(20)
    asked = made([1.0, 0.0])
    for shelf, key, most in puts:
        assert len(shelves.put(b"%d" % shelf, b"%d" % key, asked, 1.0, most)) <= most
        assert shelves.questions == sum(map(len, shelves._shelves.values())) <= 20
        if key % 5 == 0:
            shelves.drop(b"%d" % shelf, b"%d" % key)
    for number in range(50):
        shelves.opened(b"new %d" % number)
    assert len(shelves._shelves) <= 20
    assert shelves.questions == sum(map(len, shelves._shelves.values()))


def test_vectors_are_given_the_length_one_or_refused() -> None:
    assert math.isclose(sum(n * n for n in made([3.0, 4.0]).vector), 1.0, rel_tol=1e-6)
    assert question(array("f", [0.0, 0.0]), PLAIN) is None
    assert question(array("f", []), PLAIN) is None
    assert question(array("f", [math.inf, 1.0]), PLAIN) is None
    assert question(array("f", [math.nan, 1.0]), PLAIN) is None
