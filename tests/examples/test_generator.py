"""The generator: same seed, same text; held-out lines held out; values and questions of the evaluation set kept out."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from examples.support_bot import grammar, phrasings
from examples.support_bot.excluded import Excluded, plain
from examples.support_bot.generator import Corpus, conversations, open_corpus
from examples.support_bot.noise import MARKS
from examples.support_bot.scoring import score
from examples.support_bot.shop import ASK_ORDER, load_shop

NOTHING = Excluded()
SHOP = load_shop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two voices with fifty made-up lines an intent, so that both sides of the split have some of each."""
    root = tmp_path_factory.mktemp("phrasings")
    for voice in ("one", "two"):
        (root / voice).mkdir()
        for name in (*SHOP.in_scope, "off_topic", "order_reply"):
            slot = "order" if name == "order_reply" else SHOP.intents[name].slot
            texts = []
            for at in range(50):
                carries = slot is not None and (slot == "product" or name == "order_reply" or at % 2 == 0)
                texts.append(f"{voice} {name} wording{at} (asks|wants){' {' + str(slot) + '}' if carries else ''}")
            (root / voice / f"{name}.txt").write_text("\n".join(texts) + "\n")
    return root


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    return open_corpus(folder=folder, excluded=NOTHING)


def some(corpus: Corpus, seed: int, count: int = 300):  # type: ignore[no-untyped-def]
    return list(itertools.islice(conversations(corpus, seed), count))


def test_the_same_seed_gives_the_same_conversations(corpus: Corpus, folder: Path) -> None:
    again = open_corpus(folder=folder, excluded=NOTHING)
    assert some(corpus, 3) == some(again, 3)
    assert some(corpus, 3) != some(corpus, 4)


def test_each_answer_is_right_by_the_evaluators_rules(corpus: Corpus) -> None:
    for conversation in some(corpus, 1):
        said = ""
        for turn in conversation.turns:
            said += turn.question + "\n"
            assert score(turn.answer, turn.intent, turn.slots, SHOP, said).right, turn
            said += turn.answer + "\n"
            assert not any(mark in said for mark in MARKS.values())
            assert "{" not in turn.question + turn.answer


def test_an_order_question_without_a_number_is_asked_for_one(corpus: Corpus) -> None:
    asked = [c for c in some(corpus, 2, 800) if any(t.intent == ASK_ORDER for t in c.turns)]
    assert asked
    followed = [pair for c in asked for pair in itertools.pairwise(c.turns) if pair[0].intent == ASK_ORDER]
    numbers = [after for _, after in followed if "order" in after.slots]
    assert numbers
    assert all(
        turn.slots["order"] in turn.question
        for turn in numbers
        if turn.intent in SHOP.order_intents and "order_reply" in turn.question
    )


def test_a_number_given_earlier_is_used_later(corpus: Corpus) -> None:
    later = [
        t for c in some(corpus, 5, 1500) for t in c.turns if "order" in t.slots and t.slots["order"] not in t.question
    ]
    assert later
    assert all(turn.slots["order"] in turn.answer for turn in later)


def test_about_a_fifth_of_the_turns_is_off_topic(corpus: Corpus) -> None:
    turns = [t.intent for c in some(corpus, 6, 3000) for t in c.turns]
    assert 0.17 < turns.count("off_topic") / len(turns) < 0.27


def test_no_held_out_line_is_drawn_for_training_and_the_other_way_round(folder: Path) -> None:
    lines = phrasings.load(SHOP, folder)
    held = [line for line in lines if line.held_out]
    assert 0.01 < len(held) / len(lines) < 0.09
    for side in (False, True):
        corpus = open_corpus(folder=folder, excluded=NOTHING, held_out=side)
        drawn = {id(line.choice): line for name in SHOP.in_scope for line in _lines(corpus, name)}
        assert drawn
        assert all(line.held_out == side for line in drawn.values())


def _lines(corpus: Corpus, intent: str):  # type: ignore[no-untyped-def]
    return [
        line for value in (True, False) for voice in corpus._lines.get((intent, value), {}).values() for line in voice
    ]


def test_the_split_is_by_the_line_alone() -> None:
    # Computed with sha256sum: the lines whose hash begins, as four bytes, with a multiple of 25.
    held = [at for at in range(200) if phrasings.held_out(f"line {at}")]
    assert held == [5, 94, 103, 119, 139, 145, 146, 177, 198]


def test_values_of_the_evaluation_set_are_never_drawn(folder: Path) -> None:
    free = open_corpus(folder=folder, excluded=NOTHING)
    seen = {v.lower() for c in some(free, 7, 500) for t in c.turns for v in t.slots.values()}
    barred = frozenset(sorted(seen)[::3])
    kept = open_corpus(folder=folder, excluded=Excluded(values=barred))
    drawn = {v.lower() for c in some(kept, 7, 500) for t in c.turns for v in t.slots.values()}
    assert drawn
    assert not drawn & barred


def test_questions_of_the_evaluation_set_are_never_drawn(folder: Path) -> None:
    free = open_corpus(folder=folder, excluded=NOTHING)
    texts = sorted({plain(t.question, t.slots.values()) for c in some(free, 8, 400) for t in c.turns})
    barred = Excluded(texts=frozenset(texts[::4]))
    kept = open_corpus(folder=folder, excluded=barred)
    assert not any(barred.asked(t.question, t.slots.values()) for c in some(kept, 8, 400) for t in c.turns)


def test_a_line_that_cannot_be_used_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "voice").mkdir()
    (tmp_path / "voice" / "thanks.txt").write_text("(thanks\nfine {oder}\ngreat (job|work)\n")
    (tmp_path / "voice" / "nonsense.txt").write_text("x\n")
    assert [line.text for line in phrasings.load(SHOP, tmp_path)] == ["great (job|work)"]
    complained = capsys.readouterr().err
    assert "(thanks" in complained
    assert "{oder}" in complained
    assert "no such intent" in complained


def test_order_numbers_have_four_digits_and_more_and_many_repeats(corpus: Corpus) -> None:
    rng = random.Random(0)
    orders = [corpus.pools.order(rng) for _ in range(2000)]
    digits = ["".join(ch for ch in order if ch.isdigit()) for order in orders]
    assert all(4 <= len(d) <= 10 for d in digits)
    assert sum(len(set(d)) <= 2 for d in digits) > 200
    assert sum(d.startswith("0") for d in digits) > 100
    assert sum(not order[0].isdigit() for order in orders) > 200


def test_every_shipped_phrasing_can_be_read() -> None:
    for path in phrasings.FOLDER.glob("*/*.txt"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert grammar.count(grammar.parse(line)) >= 1, path
