import pytest

from penstock.core.errors import BadRequest, Conflict
from penstock.registry.card import missing, parse_card
from penstock.registry.states import may_deploy, moved

WHOLE = """---
license: apache-2.0
language: en
---
# A bot
## Intended use
## Known limitations
## Training data
```
# not a heading
```
## Evaluation
"""


def test_a_whole_card_lacks_nothing() -> None:
    card = parse_card(WHOLE)
    assert missing(card) == ()
    assert card.head == {"license": "apache-2.0", "language": "en"}
    assert "not a heading" not in card.sections


def test_what_a_card_lacks_is_named() -> None:
    assert missing(parse_card("# Only a title")) == (
        "the field `license`", "the field `language`", "the section `intended use`", "the section `limits`",
        "the section `training data`", "the section `evaluation`",
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "---\nlicense: x\n",
        "---\n- a\n---\n",
        "---\na: [\n---\n",
        "---\n!!python/object:os.system {}\n---\n",
        "x" * (1 << 21),
    ],
)
def test_a_broken_head_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_card(text)
    assert refused.value.param == "card"


def test_a_blocked_version_is_not_deployed_until_it_is_cleared() -> None:
    assert not may_deploy(moved("committed", "blocked", "bot:v1.0.0"))
    assert may_deploy(moved("blocked", "committed", "bot:v1.0.0"))
    with pytest.raises(Conflict, match=r"bot:v1\.0\.0 is blocked"):
        moved("blocked", "deprecated", "bot:v1.0.0")
