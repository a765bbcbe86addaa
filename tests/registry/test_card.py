"""Model cards."""

import pytest

from penstock.core.errors import BadRequest
from penstock.registry.card import missing_from, parse_card

WHOLE = """---
license: apache-2.0
language: [en]
---
# Bot
## Intended use
Answers.
## Limitations
Only this shop.
## Training data
Made up.
## Evaluation
| 1 |
"""


def test_a_whole_card_misses_nothing() -> None:
    card = parse_card(WHOLE)
    assert card.metadata == {"license": "apache-2.0", "language": ["en"]}
    assert card.body.startswith("# Bot")
    assert missing_from(card) == ()


def test_what_is_missing_is_named() -> None:
    card = parse_card(WHOLE.replace("license: apache-2.0\n", "").replace("Only this shop.\n", ""))
    assert missing_from(card) == ("the field 'license'", "the section 'limitations'")


def test_a_card_without_front_matter_is_text() -> None:
    assert parse_card("# Bot\n---\n").metadata == {}


@pytest.mark.parametrize(
    "front", ["- a\n- b", "a: [", "1: x", "a: !!python/object/apply:os.system [id]", "&a [*a]", "a: 2024-99-99"]
)
def test_front_matter_that_is_no_plain_mapping_is_refused(front: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_card(f"---\n{front}\n---\n")
    assert refused.value.param == "card"


def test_a_card_of_more_than_a_mebibyte_is_refused() -> None:
    with pytest.raises(BadRequest, match="1 MiB"):
        parse_card("x" * ((1 << 20) + 1))
