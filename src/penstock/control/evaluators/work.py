"""What is to be scored of a page: single answers, pairs that one request left, and answers of two arms to the same question."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from penstock.control.evaluators.page import Item, Text
from penstock.core.exchange import Exchange
from penstock.experiments.references import plain
from penstock.experiments.scoring import Result, Score, counted_first, drawn

Tally = Counter[tuple[str, str, Result]]  # by experiment, arm and what became of it
Seat = tuple[str, int, str, str]  # experiment, epoch, mark of the question, arm


class Work(NamedTuple):
    """One thing to score; its value is told of `target`. With `other`, `answer` is compared with that, else it is scored alone."""

    target: Exchange
    arm: str
    text: Text
    answer: str
    other: str | None = None


class Planned(NamedTuple):
    """What a page comes to before anything is scored: `seats` are those that wait from now on (a request) or no more (None)."""

    works: tuple[Work, ...]
    tally: Tally
    seats: dict[Seat, str | None]


def singles(items: Sequence[Item], texts: Mapping[str, Text]) -> Planned:
    """Each answer by itself."""
    works, tally = [], Tally()
    for item in items:
        exchange, text = item.exchange, texts.get(item.exchange.id)
        if text is None or 0 not in text.answers:
            tally[exchange.experiment, exchange.arm, "no_content"] += 1
        else:
            works.append(Work(exchange, exchange.arm, text, text.answers[0]))
    return Planned(tuple(works), tally, {})


def users_of(items: Sequence[Item]) -> set[str]:
    """The requests whose copies are among `items`."""
    return {item.exchange.pair.of for item in items if item.exchange.pair is not None and item.exchange.pair.of}


def pairs(items: Sequence[Item], texts: Mapping[str, Text]) -> Planned:
    """The treatment's answer and the control's, of shadows' copies and interleaved requests."""
    works, tally = [], Tally()
    for item in items:
        exchange, pair = item.exchange, item.exchange.pair
        if pair is None:
            continue
        arm = exchange.arm if pair.of else pair.arm
        both = _both(exchange, texts)
        if both is None:
            tally[exchange.experiment, arm, "no_content"] += 1
        else:
            works.append(Work(exchange, arm, *both))
    return Planned(tuple(works), tally, {})


def _both(exchange: Exchange, texts: Mapping[str, Text]) -> tuple[Text, str, str] | None:
    """What was asked, the treatment's answer and the control's; None if they are not all there, apart from each other."""
    pair, own = exchange.pair, texts.get(exchange.id)
    if pair is None:
        return None
    if pair.of:
        users = texts.get(pair.of)
        if own is None or users is None or 0 not in own.answers or 0 not in users.answers:
            return None
        return users, own.answers[0], users.answers[0]
    if own is None or len(pair.shown) != 2 or set(pair.shown) != {pair.arm, exchange.arm}:
        return None
    treatment = pair.shown.index(pair.arm)
    if treatment not in own.answers or 1 - treatment not in own.answers:
        return None  # one answer, drafted from both
    return own, own.answers[treatment], own.answers[1 - treatment]


class Asked(NamedTuple):
    """An answer whose question has been read; `mark` tells it from other questions of its tenant."""

    item: Item
    text: Text
    mark: str

    @property
    def seat(self) -> Seat:
        """Where it would wait."""
        return self.item.exchange.experiment, self.item.epoch, self.mark, self.item.exchange.arm


def same_questions(
    name: str,
    share: float,
    asked: Sequence[Asked],
    waiting: Mapping[Seat, str],
    partners: Mapping[str, tuple[Exchange, Text]],
    arms: Mapping[str, Collection[str]],
) -> Planned:
    """Two arms' answers to one question, in the order in which they came; each answer is compared once.

    Args:
        name: of the evaluator.
        share: of the questions.
        asked: the page's answers.
        waiting: what waited before the page, by seat.
        partners: what waits and can still be read, by request, of `waiting` and `asked` alike.
        arms: of each experiment.
    """
    works, tally = [], Tally()
    seats: dict[Seat, str | None] = {}
    for one in asked:
        if not drawn(name, one.mark, share) or not plain(one.text.question):
            continue
        exchange = one.item.exchange
        experiment, epoch, mark, arm = one.seat
        partner = None
        for other in sorted(arms.get(experiment, ())):
            seat = (experiment, epoch, mark, other)
            request = seats[seat] if seat in seats else waiting.get(seat)
            if other != arm and request is not None and request in partners:
                partner = partners[request]
                seats[seat] = None
                break
        if partner is None:
            seats[one.seat] = exchange.id  # who waited there before is compared with nobody any more
            tally[experiment, arm, "unpaired"] += 1
            continue
        met, text = partner
        tally[experiment, met.arm, "unpaired"] -= 1
        if counted_first(name, exchange.id, met.id):
            works.append(Work(exchange, arm, one.text, one.text.answers[0], text.answers[0]))
        else:
            works.append(Work(met, met.arm, one.text, text.answers[0], one.text.answers[0]))
    return Planned(tuple(works), tally, seats)


def tallied(planned: Planned, scores: Mapping[str, Score]) -> Tally:
    """The planned tally with what became of the works; `scores` are by the target's request."""
    tally = Tally(planned.tally)
    for work in planned.works:
        tally[work.target.experiment, work.arm, scores[work.target.id].result] += 1
    return tally
