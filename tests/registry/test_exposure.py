"""Exposure and chance: what a model that has seen nothing may show, and what one that has does."""

import math
import random

import pytest

from penstock.registry.exposure import candidates_of, chance_of, exposure_bits, rank_of
from penstock.registry.suites import Memorisation

CANARY = Memorisation(frame="The code is {}.", secret="1234")


def test_the_first_of_all_is_exposed_most() -> None:
    assert exposure_bits(1, 1023) == 10
    assert exposure_bits(512, 1023) == 1
    assert exposure_bits(1024, 1023) == 0


def test_equals_go_before_the_secret() -> None:
    assert rank_of(-3.0, [-3.0, -2.0, -9.0]) == 3
    assert rank_of(-1.0, [-3.0]) == 1


def test_candidates_are_drawn_alike_for_a_seed_and_leave_the_secret_out() -> None:
    drawn = candidates_of(CANARY, 1)
    assert drawn == candidates_of(CANARY, 1) != candidates_of(CANARY, 2)
    assert len(set(drawn)) == 255
    assert CANARY.secret not in drawn
    assert {len(one) for one in drawn} == {4}


def test_chance_of_one_is_its_rank() -> None:
    assert chance_of([exposure_bits(8, 255)]) == pytest.approx(8 / 256)
    # Fisher's method by hand: two p-values of 1/256 are -2 ln(...) = 22.18 with 4 degrees of freedom: exp(-x/2) (1 + x/2).
    half = 2 * math.log(256)
    assert chance_of([8.0, 8.0]) == pytest.approx(math.exp(-half) * (1 + half))
    assert chance_of([]) == 1.0


def test_a_model_that_has_seen_nothing_is_seldom_refused() -> None:
    draw = random.Random(5)
    runs = 4000
    refused = sum(chance_of([exposure_bits(draw.randint(1, 256), 255) for _ in range(5)]) < 0.01 for _ in range(runs))
    assert refused / runs < 0.01 + 4 * math.sqrt(0.01 * 0.99 / runs)
    assert refused  # and not never: the bound is of use
