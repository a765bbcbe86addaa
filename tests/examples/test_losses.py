"""The losses of the trainings: numbers worked out by hand, gradients against differences, and each at work on a model that is a table."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from examples.support_bot.losses import answer_log_probability, distillation, likelihood, log_softmax, preference

Array = NDArray[np.float64]
HALF, LN2, LN3 = [[0.0, 0.0]], math.log(2), math.log(3)


def distilled(
    student: Any, teacher: Any, target: int, temperature: float, mix: float, weights: Any = (1.0,)
) -> tuple[float, Array]:
    targets = np.full(len(weights), target)
    return distillation(
        np, np.array(student), np.array(teacher), targets, np.array(weights), temperature=temperature, mix=mix
    )


def differences(loss: Callable[[Array], float], at: Array, step: float = 1e-6) -> Array:
    """The gradient by central differences."""
    found = np.zeros_like(at)
    for place in np.ndindex(*at.shape):
        move = np.zeros_like(at)
        move[place] = step
        found[place] = (loss(at + move) - loss(at - move)) / (2 * step)
    return found


def test_the_soft_loss_by_hand() -> None:
    # Teacher 3/4 and 1/4, student 1/2 each: KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 3/4 ln 3 - ln 2.
    loss, gradient = distilled(HALF, [[LN3, 0.0]], 0, 1.0, 1.0)
    assert loss == pytest.approx(0.75 * LN3 - LN2)
    assert gradient == pytest.approx(np.array([[0.5 - 0.75, 0.5 - 0.25]]))


def test_the_temperature_softens_both_and_its_square_makes_up_for_it() -> None:
    # At temperature 2 the logits 2 ln 3 and 0 are 3/4 and 1/4 again; the loss counts four times, the gradient twice.
    loss, gradient = distilled(HALF, [[2 * LN3, 0.0]], 0, 2.0, 1.0)
    assert loss == pytest.approx(4 * (0.75 * LN3 - LN2))
    assert gradient == pytest.approx(np.array([[-0.5, 0.5]]))


def test_the_hard_loss_and_the_mix_by_hand() -> None:
    # The right token has 1/2 of the student: ln 2, whatever the temperature.
    loss, gradient = distilled(HALF, [[LN3, 0.0]], 1, 7.0, 0.0)
    assert loss == pytest.approx(LN2)
    assert gradient == pytest.approx(np.array([[0.5, -0.5]]))
    mixed, _ = distilled(HALF, [[LN3, 0.0]], 1, 1.0, 0.8)
    assert mixed == pytest.approx(0.8 * (0.75 * LN3 - LN2) + 0.2 * LN2)


def test_places_count_by_their_weights_and_a_student_that_is_its_teacher_has_no_soft_loss() -> None:
    student, teacher = [[0.0, 0.0], [LN3, 0.0], [5.0, -5.0]], [[LN3, 0.0], [LN3, 0.0], [0.0, 9.0]]
    loss, gradient = distilled(student, teacher, 0, 1.0, 1.0, weights=[1.0, 3.0, 0.0])
    assert loss == pytest.approx((0.75 * LN3 - LN2) / 4)
    assert gradient[1:] == pytest.approx(np.zeros((2, 2)))


def test_the_log_probability_of_an_answer_by_hand() -> None:
    # One answer of two tokens with 1/4 and 1/2, and one of a single token with 1/2.
    logits = np.array([[0.0, LN3], [0.0, 0.0], [0.0, 0.0]])
    member = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    sums, gradient = answer_log_probability(np, logits, np.array([0, 1, 0]), member)
    assert sums == pytest.approx([math.log(1 / 4) + math.log(1 / 2), math.log(1 / 2)])
    assert gradient == pytest.approx(np.array([[0.75, -0.75], [-0.5, 0.5], [0.5, -0.5]]))


def test_the_preference_loss_by_hand() -> None:
    # Margins 0 and beta * 2 = ln 3: -ln 1/2 and -ln 3/4. The gradients are -beta / 2 of 1/2 and of 1/4.
    beta = LN3 / 2
    loss, gradient = preference(np, np.array([-1.0, 1.0]), np.array([-1.0, -1.0]), beta=beta)
    assert loss == pytest.approx((LN2 + math.log(4 / 3)) / 2)
    assert gradient == pytest.approx([-beta / 4, -beta / 8])


def test_the_preference_loss_does_not_overflow() -> None:
    loss, gradient = preference(np, np.array([-9e4, 9e4]), np.array([9e4, -9e4]), beta=1.0)
    assert loss == pytest.approx(9e4)
    assert gradient == pytest.approx([-0.5, 0.0])


def test_the_likelihood_by_hand_counts_each_token_alike() -> None:
    # Answers of three tokens and of one, with 1/8 and 1/2: ln 8 + ln 2 over four tokens.
    loss, gradient = likelihood(np, np.array([-3 * LN2, -LN2]), 4)
    assert loss == pytest.approx(LN2)
    assert gradient == pytest.approx([-0.25, -0.25])


numbers = st.lists(st.floats(-4, 4), min_size=24, max_size=24)


@settings(max_examples=25)
@given(numbers, numbers, st.floats(0.5, 4), st.floats(0, 1))
def test_gradients_are_those_of_the_losses(
    some: list[float], more: list[float], temperature: float, mix: float
) -> None:
    student, teacher = np.array(some).reshape(6, 4), np.array(more).reshape(6, 4)
    targets, weights = np.array([0, 1, 2, 3, 0, 1]), np.array([1.0, 2.0, 0.0, 1.0, 1.0, 1.0])

    def soft(at: Array) -> float:
        return float(distillation(np, at, teacher, targets, weights, temperature=temperature, mix=mix)[0])

    found = distillation(np, student, teacher, targets, weights, temperature=temperature, mix=mix)[1]
    assert found == pytest.approx(differences(soft, student), abs=1e-6)

    def liked(at: Array) -> float:
        return float(preference(np, at, teacher[0], beta=temperature)[0])

    assert preference(np, student[0], teacher[0], beta=temperature)[1] == pytest.approx(
        differences(liked, student[0]), abs=1e-6
    )
    member = np.array([[1.0, 1.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]])

    def said(at: Array) -> float:
        return float(answer_log_probability(np, at, targets, member)[0].sum())

    assert answer_log_probability(np, student, targets, member)[1] == pytest.approx(
        differences(said, student), abs=1e-6
    )

    def kept(at: Array) -> float:
        return float(likelihood(np, answer_log_probability(np, at, targets, member)[0], 6)[0])

    sums, by_logits = answer_log_probability(np, student, targets, member)
    by_sums = likelihood(np, sums, 6)[1]
    assert (by_sums @ member)[:, None] * by_logits == pytest.approx(differences(kept, student), abs=1e-6)


def test_distillation_makes_a_table_say_what_its_teacher_says() -> None:
    rng = np.random.default_rng(3)
    teacher, student = rng.normal(size=(12, 12)) * 2, np.zeros((12, 12))
    tokens, weights = np.arange(12), np.ones(12)
    targets = teacher.argmax(-1)
    first, _ = distillation(np, student[tokens], teacher[tokens], targets, weights, temperature=2.0, mix=0.8)
    for _ in range(300):
        loss, gradient = distillation(np, student[tokens], teacher[tokens], targets, weights, temperature=2.0, mix=0.8)
        student[tokens] -= 4.0 * gradient
    assert loss < first / 4
    assert (student.argmax(-1) == targets).all()


def test_preferences_make_an_unwanted_answer_rare_and_leave_what_nobody_judged_as_it_was() -> None:
    """A table of next tokens, one answer of two tokens after each prompt; prompts 0 and 1 are judged, prompt 2 is not."""
    reference = np.array(
        [[0.0, 0.0, 0.0, 2.0, 0.5], [0.0, 0.0, 0.0, 1.0, 0.5], [0.0, 0.0, 0.0, 1.0, 1.0], *np.zeros((2, 5))]
    )
    prompts, wanted, unwanted = np.array([0, 1]), 4, 3

    def sums(table: Array) -> tuple[Array, Array, Array]:
        """Log-probabilities of the wanted and the unwanted first tokens, and their gradient by the rows of the table."""
        targets = np.array([wanted, wanted, unwanted, unwanted])
        found, gradient = answer_log_probability(np, table[[*prompts, *prompts]], targets, np.eye(4))
        return found[:2], found[2:], gradient

    table = reference.copy()
    chosen_before, rejected_before, _ = sums(reference)
    for _ in range(200):
        chosen, rejected, gradient = sums(table)
        _, by_chosen = preference(np, chosen - chosen_before, rejected - rejected_before, beta=0.5)
        np.subtract.at(table, [*prompts, *prompts], np.concatenate([by_chosen, -by_chosen])[:, None] * gradient)
    before, after = np.exp(log_softmax(np, reference)), np.exp(log_softmax(np, table))
    assert (before[:2, unwanted] > before[:2, wanted]).all()
    assert (after[:2, wanted] > 5 * after[:2, unwanted]).all()
    assert after[2] == pytest.approx(before[2])


def test_a_likelihood_term_keeps_the_chosen_answer_likely_where_preferences_alone_make_it_rare() -> None:
    """Features 0 and 1 are shared by both answers, as words are: what makes the rejected one rare draws the chosen one down with it."""
    features = np.array([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]])  # chosen, rejected, all else

    def taught(weight: float) -> float:
        """The probability of the chosen answer, at first 1/3."""
        head = np.zeros(3)
        before = log_softmax(np, features @ head)
        for _ in range(400):
            logs = log_softmax(np, features @ head)
            by_logs = np.eye(3) - np.exp(logs)[None, :]
            _, by_chosen = preference(np, logs[:1] - before[:1], logs[1:2] - before[1:2], beta=1.0)
            by_sum = likelihood(np, logs[:1], 1)[1]
            gradient = by_chosen[0] * (by_logs[0] - by_logs[1]) + weight * by_sum[0] * by_logs[0]
            head -= 0.5 * gradient @ features
        return float(np.exp(log_softmax(np, features @ head))[0])

    assert taught(1.0) > 0.6
    assert taught(1.0) > taught(0.0)
