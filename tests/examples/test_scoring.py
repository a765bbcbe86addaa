"""The rules of the evaluator, on answers made by hand."""

from __future__ import annotations

import math

import pytest

from examples.support_bot.figures import END, START, Share, summed, table, wilson, write_card
from examples.support_bot.scoring import score, whole
from examples.support_bot.shop import OFF_TOPIC, load_shop

SHOP = load_shop()


def test_every_answer_of_the_shop_is_its_own_intents() -> None:
    for name, intent in SHOP.intents.items():
        slots = {intent.slot: "AB-55120"} if intent.slot else {}
        for variant in range(2):
            result = score(intent.answer(variant, slots), name, slots, SHOP, "AB-55120")
            assert result.right, (name, variant)


def test_a_number_with_a_digit_too_many_is_neither_copied_nor_asked_about() -> None:
    result = score(
        "You can follow order 44719022 under Track parcel.", "track_order", {"order": "4471902"}, SHOP, "4471902"
    )
    assert result.intent_right
    assert not result.fact_right
    assert result.invented
    assert (result.orders, result.orders_right) == (("44719022",), 0)


def test_the_earlier_of_two_numbers_is_not_the_one_asked_about() -> None:
    answer = "You can follow order 11111 under Track parcel."
    result = score(answer, "track_order", {"order": "22222"}, SHOP, "11111 and then 22222")
    assert not result.right
    assert not result.invented
    assert result.orders_right == 0


def test_an_answer_of_two_intents_is_of_none() -> None:
    result = score("Choose Track parcel or Cancel order.", "track_order", {}, SHOP, "")
    assert result.said is None
    assert not result.right


@pytest.mark.parametrize("name", ["Talvo lamp", "oak table"])
def test_a_product_that_nobody_named_is_invented(name: str) -> None:
    answer = SHOP.intents["warranty"].answer(0, {"product": name})
    assert score(answer, "warranty", {"product": "Talvo lamp"}, SHOP, "my Talvo lamp broke").invented == (
        name == "oak table"
    )


def test_a_value_stands_whole_or_not_at_all() -> None:
    assert whole("AB-1", "it is AB-1.")
    assert not whole("551", "5512")


def test_wilson_gives_the_published_interval() -> None:
    # Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I, method 3: 81 of 263, 15 of 148, 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_an_empty_share_says_so() -> None:
    nothing = Share(hits=0, total=0)
    assert math.isnan(nothing.value)
    assert nothing.interval() == (0.0, 1.0)
    assert "| none |" in table({"x": nothing})


def test_figures_count_each_kind_in_its_own_total() -> None:
    refusal = SHOP.intents[OFF_TOPIC].answers[0]
    rows = [
        (OFF_TOPIC, score(refusal, OFF_TOPIC, {}, SHOP, "")),
        ("thanks", score(refusal, "thanks", {}, SHOP, "")),
        ("thanks", score("Have a nice day!", "thanks", {}, SHOP, "")),
    ]
    found = [(share.hits, share.total) for share in summed(rows).values()]
    assert found == [(1, 2), (0, 0), (1, 1), (1, 2), (0, 3)]


def test_the_card_keeps_all_but_what_is_between_its_markers(tmp_path) -> None:  # type: ignore[no-untyped-def]
    card = tmp_path / "README.md"
    card.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    write_card(card, "heading", {"x": Share(hits=1, total=2)})
    text = card.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| x | 50.0% |" in text
    card.write_text("no markers")
    with pytest.raises(ValueError, match="no markers"):
        write_card(card, "heading", {})
