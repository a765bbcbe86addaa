"""The shipped embedder with the check of facts: hits on paraphrases, and none where one fact differs."""

import random

import pytest

from bench.semantic import FOLDER, THRESHOLD
from examples.support_bot.embedder.evaluate import Eyes, hits, in_use, reworded, wrong_hits
from examples.support_bot.embedder.lookalikes import lookalikes
from examples.support_bot.embedder.pairs import HELD_OUT_VOICE, TRAINED_VOICES, Writer, negated, negations
from examples.support_bot.figures import Share

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def eyes() -> Eyes:
    return Eyes(FOLDER)


@pytest.fixture(scope="module")
def writer() -> Writer:
    return Writer(voices=(HELD_OUT_VOICE,), held_out=None)


def test_paraphrases_of_a_writer_it_never_read_are_hits(eyes: Eyes, writer: Writer) -> None:
    assert hits(eyes, reworded(writer, 120, 43), THRESHOLD).value > 0.4


def test_no_pair_that_differs_in_one_fact_is_a_hit_though_the_vectors_are_near(eyes: Eyes) -> None:
    by_kind, near = wrong_hits(eyes, 1002, THRESHOLD, seed=47)
    assert by_kind == {kind: Share(hits=0, total=334) for kind in ("entity", "number", "negation")}
    assert near.value > 0.2


def test_a_cache_in_use_is_seldom_wrong(eyes: Eyes) -> None:
    answered, wrong = in_use(eyes, 200, THRESHOLD, seed=53)
    assert answered.value > 0.08 and wrong.hits <= 2


def test_pairs_are_drawn_as_told(writer: Writer) -> None:
    pairs = lookalikes(writer, 300, 59)
    assert len({(pair.one, pair.other) for pair in pairs}) == 300
    assert all(pair.one.lower() != pair.other.lower() for pair in pairs)
    assert pairs == lookalikes(writer, 300, 59)
    rng = random.Random(61)
    for text in ("can I return it?", "I don't know.", "it never came"):
        other = negated(text, rng)
        assert other is not None and negations(other) != negations(text)


def test_the_held_out_writer_is_not_trained_on(writer: Writer) -> None:
    assert HELD_OUT_VOICE not in TRAINED_VOICES
    trained = Writer(voices=TRAINED_VOICES, held_out=False)
    judged = Writer(voices=TRAINED_VOICES, held_out=True)

    def lines(one: Writer) -> set[tuple[str, str]]:
        return {(line.voice, line.text) for found in one.lines.values() for line in found}

    assert not lines(trained) & lines(judged) and lines(judged)
    assert {voice for voice, _ in lines(writer)} == {HELD_OUT_VOICE}
