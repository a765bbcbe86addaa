"""The walk-through: its commands are of the kinds that it promises, its blank card is the one that is shipped; and the events that webhooks' page lists are those that there are."""

import re
from pathlib import Path

from penstock.delivery.events import EVENTS
from penstock.registry.card import missing_from, parse_card

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "walkthrough.md").read_text(encoding="utf-8")


def test_it_holds_the_strategy_and_walks_through_it() -> None:
    for part in (
        "## The scheme",
        "**major**",
        "**minor**",
        "**patch**",
        "## The environments",
        "The procedure:",
        "## The card",
    ):
        assert part in PAGE, part
    walk = PAGE.split("<!-- walk: begin -->")[1].split("<!-- walk: end -->")[0]
    for command in ("models diff", "pipeline run", "gates show", "approve", "rollback_drill", "history"):
        assert command in walk, command
    assert walk.count("<!-- refused -->") == 1


def test_the_blank_card_is_the_one_that_is_shipped_and_is_blank() -> None:
    card = re.findall(r"```markdown\n(.*?)```", PAGE, re.DOTALL)[0]
    assert card.strip() == (ROOT / "examples/support_bot/card-template.md").read_text(encoding="utf-8").strip()
    assert len(missing_from(parse_card(card))) >= 5


def test_every_event_is_described_as_it_is() -> None:
    page = (ROOT / "docs" / "webhooks.md").read_text(encoding="utf-8")
    assert dict(re.findall(r"^\| `([a-z.]+)` \| (.*) \|$", page, re.MULTILINE)) == EVENTS


def test_every_event_is_told_by_something() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src/penstock/control").rglob("*.py"))
    made = {  # put together where they are told
        *(f"version.{verb}" for verb in ("archive", "restore", "delete")),
        *(f"pipeline.{verb}" for verb in ("done", "refuse", "fail")),
        *(f"deployment.{verb}" for verb in ("promote", "rollback")),
        *(f"canary.{verb}" for verb in ("rollback", "abort")),
        *(f"alert.{verb}" for verb in ("rollback", "hold")),
        "webhook.test",
    }
    assert not [name for name in EVENTS if f'"{name}"' not in text and name not in made]
