"""What people said of answers, as lines to train on: supervised examples and preferences, in the form that TRL reads. Pure."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from penstock.core.exchange import Exchange, Observation
from penstock.journal.content import Said

_TEXTS = frozenset({"content", "text"})
_MOST_PROMPTS = 100_000
_MOST_ANSWERS = 4  # of one prompt, good and bad ones each

Mask = Callable[[list[str]], list[str]]
Turn = dict[str, str]


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What counts.

    Attributes:
        good_at, bad_at: a rating from (up to) which an answer is good (bad); `success` says it too.
        consented: only what people consented to.
        joined: also pair good and bad answers that different requests got to the very same question.
    """

    good_at: float = 1.0
    bad_at: float = -1.0
    consented: bool = True
    joined: bool = True


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """One answer that somebody judged: who said so, and which weights gave it."""

    text: str
    lineage: dict[str, Any]
    consent: bool


class Pairs:
    """Makes lines of exchanges in turn. It remembers the questions so far, to pair answers of different requests."""

    def __init__(self, wish: Wish, mask: Mask) -> None:
        self._wish = wish
        self._mask = mask
        self._good: dict[str, list[Answered]] = {}
        self._bad: dict[str, list[Answered]] = {}

    def wanted(self, observations: Sequence[Observation]) -> list[Observation]:
        """Those that may be used: the ones that were consented to, if that is asked for."""
        return [told for told in observations if told.consent or not self._wish.consented]

    def lines(self, exchange: Exchange, said: Said, observations: Sequence[Observation]) -> Iterator[dict[str, Any]]:
        """The lines that follow from what was said of `exchange`, in the order of telling."""
        if exchange.operation == "embeddings":
            return
        turns = self._turns(said)
        answers = {index: text for index, field, text in said.replies if field in _TEXTS and text}
        if not turns or not answers:
            return
        masked = dict(zip(answers, self._mask(list(answers.values())), strict=True))
        for told in self.wanted(observations):
            if told.kind == "feedback" and 0 in masked:
                yield from self._feedback(exchange, turns, masked[0], told)
            elif told.kind == "preference":
                yield from self._preference(exchange, turns, masked, told)

    def _feedback(
        self, exchange: Exchange, turns: list[Turn], answer: str, told: Observation
    ) -> Iterator[dict[str, Any]]:
        lineage = lineage_of(exchange, told)
        if told.corrected:
            corrected = self._mask([told.corrected])[0]
            yield supervised([*turns, _said_by_model(corrected)], lineage | {"how": "corrected"}, told.consent)
            if corrected != answer:
                yield preference(turns, corrected, answer, lineage | {"how": "corrected"}, told.consent)
            return
        good = told.success is True or (told.rating is not None and told.rating >= self._wish.good_at)
        bad = told.success is False or (told.rating is not None and told.rating <= self._wish.bad_at)
        if good == bad:
            return
        if good:
            yield supervised([*turns, _said_by_model(answer)], lineage | {"how": "rated"}, told.consent)
        if self._wish.joined:
            one = Answered(text=answer, lineage=lineage, consent=told.consent)
            yield from self._join(turns, one, good=good)

    def _join(self, turns: list[Turn], one: Answered, *, good: bool) -> Iterator[dict[str, Any]]:
        key = hashlib.sha256(msgspec.json.encode(turns)).hexdigest()
        mine, theirs = (self._good, self._bad) if good else (self._bad, self._good)
        for other in theirs.get(key, ()):
            if other.text == one.text:
                continue
            chosen, rejected = (one, other) if good else (other, one)
            lineage = {"how": "joined", "chosen": chosen.lineage, "rejected": rejected.lineage}
            yield preference(turns, chosen.text, rejected.text, lineage, chosen.consent and rejected.consent)
        if len(mine) < _MOST_PROMPTS or key in mine:
            kept = mine.setdefault(key, [])
            if len(kept) < _MOST_ANSWERS and all(known.text != one.text for known in kept):
                kept.append(one)

    def _preference(
        self, exchange: Exchange, turns: list[Turn], answers: dict[int, str], told: Observation
    ) -> Iterator[dict[str, Any]]:
        if told.name != "chosen" or told.value is None:
            return
        chosen = int(told.value)
        rejected = [index for index in answers if index != chosen]
        if chosen not in answers or len(rejected) != 1 or answers[chosen] == answers[rejected[0]]:
            return
        lineage = lineage_of(exchange, told) | {"how": "chosen"}
        pair = exchange.pair
        if pair is not None and len(pair.shown) > max(chosen, rejected[0]):
            digests = {pair.arm: pair.digest}
            for side, index in (("chosen", chosen), ("rejected", rejected[0])):
                arm = pair.shown[index]
                lineage[f"{side}_arm"] = arm
                lineage[f"{side}_digest"] = digests.get(arm, exchange.digest)
        yield preference(turns, answers[chosen], answers[rejected[0]], lineage, told.consent)

    def _turns(self, said: Said) -> list[Turn]:
        texts = self._mask([text for _, text in said.messages])
        return [
            {"role": "user" if role == "prompt" else role, "content": text}
            for (role, _), text in zip(said.messages, texts, strict=True)
        ]


def lineage_of(exchange: Exchange, told: Observation) -> dict[str, Any]:
    """Where a line comes from: ids and digests, nobody's name."""
    return {
        "request": exchange.id,
        "observation": told.id,
        "at": exchange.at,
        "tenant": exchange.tenant,
        "route": exchange.route,
        "version": exchange.version,
        "digest": exchange.digest,
    } | ({"experiment": exchange.experiment, "arm": exchange.arm} if exchange.experiment else {})


def supervised(messages: list[Turn], lineage: dict[str, Any], consent: bool) -> dict[str, Any]:
    """A supervised example: a conversation whose last turn is the answer to learn."""
    return {"kind": "supervised", "messages": messages, "consent": consent, "lineage": lineage}


def preference(turns: list[Turn], chosen: str, rejected: str, lineage: dict[str, Any], consent: bool) -> dict[str, Any]:
    """A preference pair."""
    return {
        "kind": "preference",
        "prompt": turns,
        "chosen": [_said_by_model(chosen)],
        "rejected": [_said_by_model(rejected)],
        "consent": consent,
        "lineage": lineage,
    }


def _said_by_model(text: str) -> Turn:
    return {"role": "assistant", "content": text}
