"""The rules by which answers are scored after the fact."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest
from penstock.experiments.answer_rules import AnswerRules, check_rules, is_refusal, score_by_rules
from penstock.experiments.json_shape import check_schema, fits
from penstock.experiments.judge_words import ask_grade, ask_which, both_orders, grade_in, letter_in
from penstock.experiments.references import (
    Reference,
    ReferenceSet,
    check_references,
    is_right,
    numbers_in,
    plain,
)
from penstock.experiments.scoring import Score, cosine, counted_first, coverage, drawn
from penstock.experiments.toxic_words import WEIGHTS, lexicon, score_by_words


def test_a_share_is_drawn_the_same_for_ever_and_by_each_evaluator_anew() -> None:
    ids = [f"req_{number}" for number in range(4000)]
    mine = {one for one in ids if drawn("facts", one, 0.25)}
    assert 900 < len(mine) < 1100
    assert mine == {one for one in ids if drawn("facts", one, 0.25)}
    assert mine <= {one for one in ids if drawn("facts", one, 0.5)}
    both = mine & {one for one in ids if drawn("tone", one, 0.25)}
    assert 180 < len(both) < 320
    assert all(drawn("facts", one, 1.0) for one in ids)


def test_a_comparison_counts_for_one_of_both_whoever_is_named_first() -> None:
    firsts = 0
    for number in range(2000):
        one, other = f"req_{number}", f"req_{(number * 7919) % 99991 + 5000}"
        assert counted_first("e", one, other) is not counted_first("e", other, one)
        firsts += counted_first("e", one, other)
    assert 900 < firsts < 1100


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8), st.floats(0.01, 100))
def test_a_vector_is_as_near_to_itself_as_can_be(vector: list[float], times: float) -> None:
    found = cosine(vector, [times * value for value in vector])
    if math.fsum(value * value for value in vector) > 1e-6:
        assert found == pytest.approx(1.0)
    assert cosine([1.0, 0.0], [0.0, 2.0]) == 0
    assert cosine([1.0, 0.0], [-3.0, 0.0]) == -1


def test_what_is_no_vector_has_no_cosine() -> None:
    assert cosine([1.0], [1.0, 2.0]) is None
    assert cosine([0.0, 0.0], [1.0, 2.0]) is None
    assert cosine([math.nan, 1.0], [1.0, 2.0]) is None
    assert cosine([math.inf, -math.inf], [1.0, 1.0]) is None
    assert cosine([1e308, 1e308, 1.0], [1.0, 1.0, 1.0]) is None


@pytest.mark.parametrize(
    ("letters", "result", "value"),
    [
        ("AB", "won", 1.0),
        ("BA", "lost", 0.0),
        ("CC", "same", 0.5),
        ("AA", "contradicted", 0.5),
        ("BB", "contradicted", 0.5),
        ("AC", "contradicted", 0.5),
        ("CB", "contradicted", 0.5),
    ],
)
def test_only_what_holds_in_both_orders_is_a_preference(letters: str, result: str, value: float) -> None:
    assert both_orders(letters) == Score(result, value)  # type: ignore[arg-type]


def test_a_reply_without_a_letter_is_no_judgement() -> None:
    assert [letter_in(one) for one in ("A", " **b** is", "(C)", "Neither", "", "answer A")] == [
        "A",
        "B",
        "C",
        "",
        "",
        "A",
    ]
    told = {
        "Answer B": "B",
        "Answer: **B**": "B",
        "The better answer is B.": "B",
        "Assistant A": "A",
        "b.": "B",
        "A: it": "A",
    }
    assert {reply: letter_in(reply) for reply in told} == told
    assert {letter_in(reply) for reply in ("Both", "Both are", "Cannot say", "As an AI", "Answer", "Can't", "A's")} == {
        ""
    }
    assert both_orders(("A", "")).result == "unreadable"


def test_grades_run_from_0_to_1() -> None:
    assert [grade_in(one, 1, 5) for one in ("1", "Grade: 4/5", "5.")] == [0.0, 0.75, 1.0]
    assert [grade_in(one, 1, 5) for one in ("0", "six", "", "9" * 500)] == [None] * 4
    assert grade_in("-2", -2, 2) == 0.0
    assert grade_in("0" * 20 + "9999", 0, 10) is None, "no grade above 1"
    assert grade_in("0" * 5000, 0, 10) is None


def test_the_newest_of_a_long_request_and_the_beginning_of_long_answers_are_shown() -> None:
    (_, asked) = ask_which("x" * 9000 + "last", "first" + "y" * 9000, "z", "manners")
    assert "xlast\n" in asked["content"] and "firsty" in asked["content"] and len(asked["content"]) < 17_000
    (rules, _) = ask_grade("q", "a", "Is it polite?", 0, 10)
    assert "Is it polite?" in rules["content"] and "from 0 to 10" in rules["content"]


def reference(match: str, *answers: str, tolerance: float = 0.0) -> Reference:
    return Reference(question="q", answers=answers, match=match, tolerance=tolerance)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "right", "wrong"),
    [
        (reference("contains", "30 days", "a month"), "You have 30 days, sir.", "You have 130 days."),
        (reference("all", "Paris", "France"), "PARIS, in France", "Paris, in Texas"),
        (reference("exact", "Yes."), "yes!", "yes it is"),
        (reference("number", "1,200", tolerance=0.01), "About 1205 EUR", "About 1300 EUR"),
        (reference("number", "3.5"), "3,5 kg", "35 kg"),
        (reference("pattern", r"(?i)\border [0-9]{7}\b"), "Your Order 4471902 is out.", "Your order is out."),
    ],
)
def test_an_answer_is_right_or_wrong(one: Reference, right: str, wrong: str) -> None:
    check_references([one], "items")
    assert is_right(one, right)
    assert not is_right(one, wrong)


def test_a_question_is_found_whatever_its_case_and_punctuation() -> None:
    known = ReferenceSet([Reference(question="How long may I return it?", answers=("30 days",))])
    assert known.score("how long may I  return it", "30 days") == Score("scored", 1.0)
    assert known.score("How long may I return it?!", "a year") == Score("scored", 0.0)
    assert known.score("How long is it?", "30 days").result == "no_reference"


def test_numbers_are_read_as_people_write_them() -> None:
    assert numbers_in("1,234.50 and -3,5 and 7 and 1.2.3") == [1234.5, -3.5, 7.0]


@given(st.text(max_size=80))
def test_words_are_plain_once_and_for_all(text: str) -> None:
    assert plain(plain(text)) == plain(text)


@pytest.mark.parametrize(
    ("references", "path"),
    [
        ([Reference(question="?!", answers=("a",))], "items.0.question"),
        ([Reference(question="a", answers=()),], "items.0.answers"),
        ([Reference(question="a", answers=("b",)), Reference(question="A!", answers=("c",))], "items.1.question"),
        ([Reference(question="a", answers=("(",), match="pattern")], "items.0.answers.0"),
        ([Reference(question="a", answers=("none",), match="number")], "items.0.answers.0"),
        ([Reference(question="a", answers=("1",), match="number", tolerance=-1)], "items.0.tolerance"),
    ],
)  # fmt: skip
def test_references_that_could_never_be_met_are_refused(references: list[Reference], path: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check_references(references, "items")
    assert refused.value.param == path


@pytest.mark.parametrize(
    ("rules", "holds", "breaks"),
    [
        (AnswerRules(contains=("order",)), "Your ORDER.", "Your orders"),
        (AnswerRules(contains_any=("yes", "no")), "No.", "Perhaps"),
        (AnswerRules(lacks=("guarantee",)), "We try.", "We guarantee it."),
        (AnswerRules(pattern=r"^Dear"), "Dear Jane", "Hi, Dear"),
        (AnswerRules(lacks_pattern=r"[0-9]{16}"), "no card", "4111111111111111"),
        (AnswerRules(min_number=0, max_number=10), "about 7", "about 70"),
        (AnswerRules(max_number=10), "0", "none"),
        (AnswerRules(min_characters=3, max_characters=5), "four", "longer"),
        (AnswerRules(min_words=2, max_words=3), "two words", "one"),
        (AnswerRules(refuses=False), "I am sorry for the wait.", "I'm sorry, but I can't help with that."),
        (AnswerRules(refuses=True), "I cannot help with that.", "It is on its way."),
        (AnswerRules(json_schema={"type": "object", "required": ["a"]}), '```json\n{"a": 1}\n```', '{"b": 1}'),
        (AnswerRules(json_schema={"type": "array"}), "[]", "[] and more"),
    ],
)
def test_a_rule_holds_or_is_broken(rules: AnswerRules, holds: str, breaks: str) -> None:
    check_rules(rules)
    assert score_by_rules(rules, holds) == Score("scored", 1.0)
    assert score_by_rules(rules, breaks) == Score("scored", 0.0)


@pytest.mark.parametrize(
    ("rules", "path"),
    [
        (AnswerRules(), "rules"),
        (AnswerRules(refusals=("x",)), "rules"),
        (AnswerRules(pattern="("), "rules.pattern"),
        (AnswerRules(refuses=True, refusals=("a", "(")), "rules.refusals.1"),
        (AnswerRules(contains=("!",)), "rules.contains.0"),
        (AnswerRules(json_schema={"properties": {"a": {"format": "date"}}}), "rules.json_schema.properties.a.format"),
        (AnswerRules(json_schema={"required": [["a"]]}), "rules.json_schema.required"),
        (AnswerRules(json_schema={"type": [["null"]]}), "rules.json_schema.type"),
        (AnswerRules(json_schema={"pattern": 5}), "rules.json_schema.pattern"),
    ],
)
def test_rules_that_say_nothing_are_refused(rules: AnswerRules, path: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check_rules(rules)
    assert refused.value.param == path


def test_a_number_of_any_size_is_looked_at() -> None:
    check_rules(AnswerRules(json_schema={"minimum": -(10**400)}))
    for schema, value in (({"type": "integer"}, 1.0), ({"type": "number", "maximum": 5.5}, 0.0)):
        assert score_by_rules(AnswerRules(json_schema=schema), "1" + "0" * 400) == Score("scored", value)


SCHEMA = {
    "type": "object",
    "required": ["name", "tags"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "minLength": 2, "maxLength": 5, "pattern": "^[a-z]+$"},
        "tags": {"type": "array", "minItems": 1, "items": {"enum": ["new", "old", 1]}},
        "price": {"type": ["number", "null"], "minimum": 0, "exclusiveMaximum": 10},
        "count": {"type": "integer"},
        "kind": {"anyOf": [{"const": True}, {"type": "string"}]},
    },
}


@pytest.mark.parametrize(
    ("more", "good"),
    [
        ({}, True),
        ({"name": "x"}, False),
        ({"name": "toolong"}, False),
        ({"name": "Abc"}, False),
        ({"name": 7}, False),
        ({"tags": []}, False),
        ({"tags": ["new", "other"]}, False),
        ({"tags": [True]}, False),
        ({"price": None}, True),
        ({"price": 10}, False),
        ({"price": -0.1}, False),
        ({"price": True}, False),
        ({"count": 2.0}, True),
        ({"count": 2.5}, False),
        ({"kind": True}, True),
        ({"kind": 1}, False),
        ({"more": 1}, False),
    ],
)
def test_json_has_the_shape_that_was_asked_for(more: dict[str, object], good: bool) -> None:
    check_schema(SCHEMA)
    assert fits(SCHEMA, {"name": "abc", "tags": ["new"]} | more) is good
    assert not fits(SCHEMA, [])


@pytest.mark.parametrize(
    "schema",
    [
        [],
        {"type": "text"},
        {"minLength": -1},
        {"minimum": "1"},
        {"required": "a"},
        {"properties": []},
        {"pattern": "("},
    ],
)
def test_what_is_no_schema_is_refused(schema: object) -> None:
    with pytest.raises(BadRequest):
        check_schema(schema)


def test_the_worst_word_counts_and_whole_words_alone() -> None:
    words = lexicon(["flat earth"])
    assert score_by_words(words, "What a lovely day").value == 0
    assert score_by_words(words, "Damn, you IDIOT!").value == WEIGHTS["idiot"] > WEIGHTS["damn"]
    assert score_by_words(words, "idiotic grapefruit scunthorpe").value == 0
    assert score_by_words(words, "I hope you die").value == 1
    assert score_by_words(words, "The flat-earth people").value == 1
    assert all(plain(word) == word for word in WEIGHTS)


def test_refusals_are_known_by_their_patterns() -> None:
    assert is_refusal("I'm sorry, but I can't help with that.")
    assert not is_refusal("I am sorry for the delay. Your order comes today.")
    assert is_refusal("Nein.", (r"^Nein",))


def test_coverage_counts_ties_and_contradictions() -> None:
    found = coverage({"won": 3, "lost": 1, "same": 1, "contradicted": 5, "identical": 2, "failed": 4, "unpaired": 1})
    assert (found.drawn, found.told, found.ties) == (17, 12, 8)
    assert found.disagreement == 0.5
    assert coverage({"scored": 2}).disagreement is None


def test_no_pattern_can_hang() -> None:
    """RE2 does: the backtracking engine would need 2^30 steps."""
    rules = AnswerRules(pattern=r"^(a+)+$")
    check_rules(rules)
    assert score_by_rules(rules, "a" * 30 + "!").value == 0
