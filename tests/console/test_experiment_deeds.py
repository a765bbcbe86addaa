"""What follows from a verdict: buttons that lead to the promotion or the roll-back, filled in."""

import html
import re

import httpx
import pytest

from penstock.console.pages.experiment_deeds import deed_links
from penstock.console.shapes import Deployment
from penstock.console.shapes_experiments import ArmBuild, Judged, ResolvedArm, WholeExperiment
from penstock.experiments.design import parse_design
from tests.console.conftest import sign_in
from tests.console.house import AB, House


def ended(state: str, **treatment: object) -> WholeExperiment:
    arms = [AB["arms"][0], AB["arms"][1] | treatment]
    return WholeExperiment(
        name="e",
        state="decided",
        spec=parse_design(AB | {"arms": arms}),
        resolved={
            "control": ResolvedArm(build=ArmBuild(model="support-bot", label="v1.0.0")),
            "treatment": ResolvedArm(build=ArmBuild(model="support-bot", label="v1.1.0")),
        },
        verdict=Judged(state=state, arm="treatment", reasons=("Success is 5 points apart.", "More.")),
    )


LIVE = [
    Deployment(environment=environment, model="support-bot", label=label, digest="")
    for environment, label in (("production", "v1.1.0"), ("staging", "v1.0.0"))
]


def test_a_loser_is_rolled_back_where_it_is_live() -> None:
    (link,) = deed_links(ended("worse"), LIVE)
    assert link.words == "Roll back v1.1.0 in production…"
    assert link.url == (
        "/models/support-bot/rollback?environment=production&reason=e%3A+treatment+is+worse.+Success+is+5+points+apart."
    )
    assert deed_links(ended("worse"), LIVE[1:]) == []


@pytest.mark.parametrize("varies", [{"params": {"temperature": 0.1}}, {"system": "Be brief."}])
def test_what_a_promotion_would_leave_behind_is_not_promoted(varies: dict[str, object]) -> None:
    assert [link.words for link in deed_links(ended("better"), [])] == ["Promote v1.1.0…"]
    assert deed_links(ended("better", **varies), []) == []


async def test_the_winner_is_promoted_from_its_page(house: House, visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor)
    page = (await visitor.get("/experiments/support-bot-1-1")).text
    (url,) = re.findall(r'href="([^"]+)">Promote v1.1.0…</a>', page)
    form = await visitor.get(html.unescape(url))
    assert form.status_code == 200
    assert "Promote support-bot:v1.1.0" in form.text
    (reason,) = re.findall(r'name="reason" maxlength="500" value="([^"]+)"', form.text)
    said = house.call("GET", "/experiments/support-bot-1-1")["verdict"]["reasons"][0]
    assert html.unescape(reason) == f"support-bot-1-1: treatment is better. {said}"
    assert "Promote v" not in (await visitor.get("/experiments/echo-warmth")).text
