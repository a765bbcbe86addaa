"""The losses of distil.py and dpo.py with their gradients in closed form, over numpy's arrays and torch's tensors alike.

`xp` is the module that the arrays belong to, `numpy` or `torch`. Logits are natural logarithms up to a constant; a gradient is by the
logits that it is told with, so that `logits.backward(gradient)` goes on from there.
"""

from __future__ import annotations

from typing import Any

Array = Any  # of numpy or of torch


def log_softmax(xp: Any, logits: Array) -> Array:
    """Logarithms of the probabilities along the last axis."""
    shifted = logits - xp.amax(logits, axis=-1, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))


def distillation(
    xp: Any, student: Array, teacher: Array, targets: Array, weights: Array, *, temperature: float, mix: float
) -> tuple[Array, Array]:
    """The loss of Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2, and its gradient.

    At each place `mix * temperature**2 * KL(teacher || student)`, both softened by the temperature, plus `(1 - mix)` times the cross-entropy
    of the right token; the mean over places by their weights. The square keeps the two terms in proportion whatever the temperature.

    Args:
        xp: numpy or torch.
        student: logits [places, vocabulary].
        teacher: logits alike.
        targets: the right tokens [places].
        weights: of the places [places], not all zero.
        temperature: above zero.
        mix: share of the soft targets, 0 to 1.

    Returns:
        The loss, and its gradient by the student's logits [places, vocabulary].
    """
    hot_teacher, hot_student = log_softmax(xp, teacher / temperature), log_softmax(xp, student / temperature)
    wanted, given = xp.exp(hot_teacher), xp.exp(hot_student)
    cold = log_softmax(xp, student)
    places = xp.arange(len(targets))
    soft = temperature**2 * xp.sum(wanted * (hot_teacher - hot_student), axis=-1)
    hard = -cold[places, targets]
    share = weights / xp.sum(weights)
    by_hard = xp.exp(cold)
    by_hard[places, targets] -= 1.0
    gradient = share[:, None] * (mix * temperature * (given - wanted) + (1 - mix) * by_hard)
    return xp.sum(share * (mix * soft + (1 - mix) * hard)), gradient


def answer_log_probability(xp: Any, logits: Array, targets: Array, member: Array) -> tuple[Array, Array]:
    """The log-probabilities of answers, and the gradient of their sum.

    Args:
        xp: numpy or torch.
        logits: at the places of all answers' tokens [places, vocabulary].
        targets: these tokens [places].
        member: 1 where a place is the answer's, else 0 [answers, places].

    Returns:
        Sums over each answer's tokens [answers], and at each place the gradient of its own by the logits [places, vocabulary].
    """
    logs = log_softmax(xp, logits)
    places = xp.arange(len(targets))
    gradient = -xp.exp(logs)
    gradient[places, targets] += 1.0
    return member @ logs[places, targets], gradient


def preference(xp: Any, chosen: Array, rejected: Array, *, beta: float) -> tuple[Array, Array]:
    """The loss of direct preference optimisation (Rafailov et al. 2023, equation 7) and its gradient.

    The mean of `-log sigmoid(beta * (chosen - rejected))`.

    Args:
        xp: numpy or torch.
        chosen: log-probability of the preferred answer, less that by the frozen reference [pairs].
        rejected: the same of the other answer.
        beta: how dear it is to leave the reference, above zero.

    Returns:
        The loss, and its gradient by `chosen` [pairs]; by `rejected` it is the negative of that.
    """
    margin = beta * (chosen - rejected)
    distance = xp.abs(margin)
    losses = xp.log1p(xp.exp(-distance)) + (distance - margin) / 2
    wrong = (1 - xp.tanh(margin / 2)) / 2  # sigmoid(-margin), without overflow
    return xp.mean(losses), -beta * wrong / len(margin)


def likelihood(xp: Any, sums: Array, tokens: int) -> tuple[Array, Array]:
    """The cross-entropy a token of answers that were wanted: what keeps them likely while `preference` parts them from others.

    Alone, `preference` is content when both answers become rare, the rejected one more so (Pal et al. 2024, "Smaug"); Pang et al. 2024, "Iterative
    Reasoning Preference Optimization", equation 1, add this term to it.

    Args:
        xp: numpy or torch.
        sums: log-probabilities of the answers [answers].
        tokens: of all of them together, at least one.

    Returns:
        The loss, and its gradient by `sums` [answers].
    """
    return -xp.sum(sums) / tokens, xp.full_like(sums, -1.0 / tokens)
