"""Alerts that act: from the webhook through the environment's policy to a revision, once, with what says why."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import select

from penstock.control.context import SYSTEM
from penstock.control.experiments.life import pause
from penstock.control.specs.resources import EnvironmentSpec
from penstock.control.specs.rollback import AutoRollbackSpec
from penstock.control.watch import alerts_act
from penstock.control.watch.alerts_act import AlertActor
from penstock.control.watch.drift_store import save_group
from penstock.experiments.drift_watch import Watching, new_group
from penstock.store.schema import audit_events
from tests.control.house import House, eventually
from tests.control.test_alerts import at, notice, tell, told
from tests.control.test_deployments import served

POLICY = {"alerts": ["PenstockOutputDrift", "PenstockAvailabilityFastBurn"], "cool_down_s": 3600}


def test_the_policy_of_the_page_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "drift.md").read_text(encoding="utf-8")
    document = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])
    spec = EnvironmentSpec.model_validate(document["spec"])
    assert spec.auto_rollback == AutoRollbackSpec()  # the page shows what is so by default


async def promoted(house: House, label: str) -> dict[str, Any]:
    response = await house.admin.post("/api/v1/promote?wait=20", json={"model": "support-bot", "label": label})
    assert response.status_code == 201, response.text
    found: dict[str, Any] = response.json()
    assert found["state"] == "live"
    return found


async def permitted(house: House, **policy: Any) -> None:
    spec = {"auto_rollback": POLICY | policy}
    document = {"kind": "Environment", "name": "production", "spec": spec}
    response = await house.admin.post("/api/v1/apply", json={"documents": [document]})
    assert response.status_code == 200, response.text


async def two_versions(house: House) -> AlertActor:
    """The second is live; Alertmanager's token is there; the test begins the actor's rounds."""
    async with house.client("none") as client:
        assert (await client.post("/api/v1/alerts", json=notice())).status_code == 401
    for label in ("v1.0.0", "v1.1.0"):
        await house.push("support-bot", label)
        await promoted(house, label)
    return AlertActor(house.control)


@pytest.fixture
async def deployed(small_house: House) -> tuple[House, AlertActor]:
    """A house with two versions, and what acts in it."""
    return small_house, await two_versions(small_house)


def fires(name: str = "PenstockOutputDrift", mark: str = "a", starts: float = 900.0, **labels: str) -> dict[str, Any]:
    """An alert that begins after all that the test has deployed."""
    made = told(starts=at(starts), alertname=name, **labels)
    made["annotations"]["summary"] = "Perplexity of support-bot:v1.1.0 has changed."
    return made | {"fingerprint": mark}


async def actions(house: House) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await house.get("/alerts/actions")
    return found


async def test_a_version_that_degrades_is_rolled_back_once_and_kept_out(house: House) -> None:
    actor = await two_versions(house)
    await permitted(house)
    await tell(house, notice(fires(model="support-bot:v1.1.0", signal="perplexity")))
    assert await actor.round() == 1
    assert await actor.round() == 0
    await eventually(lambda: served(house.publisher.current) == "support-bot:v1.0.0")
    history = await house.get("/models/support-bot/history")
    newest = [history[0][name] for name in ("number", "action", "label", "principal")]
    assert newest == [3, "rollback", "v1.0.0", "penstock"]
    assert history[0]["reason"].startswith("PenstockOutputDrift (alert 1): Perplexity of support-bot:v1.1.0")
    (row,) = await actions(house)
    assert (row["action"], row["label"], row["revision"]) == ("rollback", "v1.1.0", history[0]["id"])
    async with house.control.database.read() as connection:
        audited = (
            await connection.execute(select(audit_events).where(audit_events.c.action == "alert.rollback"))
        ).one()
    assert audited.detail["labels"]["signal"] == "perplexity"
    again = await house.admin.post("/api/v1/promote", json={"model": "support-bot", "label": "v1.1.0"})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "version_blocked")
    # It fires on, and another one begins, about what is live now: a roll-back is not rolled back.
    await tell(house, notice(fires(model="support-bot:v1.1.0"), fires(mark="b", model="support-bot:v1.0.0")))
    assert await actor.round() == 1
    assert [row["action"] for row in await actions(house)] == ["none", "rollback"]
    assert len(await house.get("/models/support-bot/history")) == 3


async def test_what_was_told_to_a_process_that_died_is_found_by_the_next(deployed: tuple[House, AlertActor]) -> None:
    house, _ = deployed
    await permitted(house)
    await tell(house, notice(fires("PenstockAvailabilityFastBurn", route="support-bot")))
    assert await AlertActor(house.control).round() == 1
    assert [row["action"] for row in await actions(house)] == ["rollback"]


async def test_what_keeps_it_from_acting_is_told(deployed: tuple[House, AlertActor]) -> None:
    house, actor = deployed
    cases: tuple[tuple[dict[str, Any], dict[str, Any], str], ...] = (
        ({"model": "support-bot:v1.0.0"}, {}, "is about support-bot:v1.0.0"),
        ({"model": "support-bot:v1.1.0", "starts": -7200.0}, {}, "began before"),
        ({"model": "support-bot:v1.1.0"}, {"action": "none"}, "only watches"),
    )
    for number, (alert, policy, says) in enumerate(cases):
        await permitted(house, **policy)
        await tell(house, notice(fires(mark=f"case{number}", **alert)))
        assert await actor.round() == 1
        row = max(await actions(house), key=lambda one: int(one["sequence"]))
        assert row["action"] == "none"
        assert says in row["reason"]
    watching = Watching(new_group(0.0))
    for number in range(400):
        watching.feed("input_length", 40.0 + number % 50 if number < 250 else 900.0, 1.0, number)
    async with house.control.database.write() as connection:
        await save_group(connection, ("support-bot:v1.1.0", ""), watching.kept(), known=True)
    await permitted(house)
    await tell(house, notice(fires(mark="asked", model="support-bot:v1.1.0", signal="perplexity")))
    before = len(await actions(house))
    assert await actor.round() == 0
    told = await actions(house)
    assert len(told) == before + 1
    assert told[0]["action"] == "wait"  # what is asked may become again what it was
    assert served(house.publisher.current) == "support-bot:v1.1.0"


async def test_alerts_that_no_policy_names_or_that_name_nothing_here_do_nothing(
    deployed: tuple[House, AlertActor],
) -> None:
    house, actor = deployed
    await tell(house, notice(fires(model="support-bot:v1.1.0")))
    assert await actor.round() == 0  # there is no policy
    await permitted(house, models=["other-bot"])
    assert await actor.round() == 0
    await permitted(house)
    await tell(house, notice(fires(mark="c", route="no-such"), fires("PenstockQueueGrowing", mark="d", pool="p")))
    assert await actor.round() == 1  # the first one, whose policy came later
    assert len(await actions(house)) == 1


async def test_a_version_that_is_held_stays_and_is_not_deployed_anew(deployed: tuple[House, AlertActor]) -> None:
    house, actor = deployed
    await permitted(house, action="hold")
    await tell(house, notice(fires(pool="support-bot-v1.1.0-int8")))
    assert await actor.round() == 1
    assert served(house.publisher.current) == "support-bot:v1.1.0"
    (row,) = await actions(house)
    assert (row["action"], row["revision"]) == ("hold", None)
    assert len(await house.get("/blocks")) == 1


async def test_an_experiment_decides_alone_until_it_ends(
    deployed: tuple[House, AlertActor], caplog: pytest.LogCaptureFixture
) -> None:
    house, actor = deployed
    await permitted(house)
    async with house.control.database.write() as connection:
        from penstock.store.schema_experiments import experiments

        await connection.execute(
            experiments.insert().values(
                name="try",
                spec={},
                route="other",
                state="running",
                origin="api",
                resolved={
                    "a": {"pool": "p", "build": {"model": "support-bot", "label": "v1.1.0", "precision": "int8"}}
                },
                ranges={},
                epoch=1,
                step=0,
                serving="",
                created_at=0.0,
                created_by="t",
            )
        )
    await tell(house, notice(fires(model="support-bot:v1.1.0")))
    assert (await actor.round(), await actor.round()) == (0, 0)
    (waits,) = await actions(house)
    assert (waits["action"], waits["revision"]) == ("wait", None)
    assert "The experiment try decides" in waits["reason"]
    assert caplog.text.count("The experiment try decides") == 1
    async with house.control.database.write() as connection:
        await connection.execute(experiments.delete())
    assert await actor.round() == 1
    assert [row["action"] for row in await actions(house)] == ["rollback"]


@pytest.mark.parametrize("paused", [False, True], ids=["aborted", "paused"])
async def test_a_canary_that_is_over_or_paused_does_not_keep_a_bad_version_live(
    deployed: tuple[House, AlertActor], paused: bool
) -> None:
    house, actor = deployed
    await permitted(house)
    await house.push("support-bot", "v1.2.0")
    canary = await house.post("/canaries", {"model": "support-bot", "label": "v1.2.0"})
    if paused:
        async with house.control.change(SYSTEM) as change:
            await pause(change, canary["name"], "to look")
    else:
        await house.post("/canaries/support-bot/abort", {}, 200)
    await tell(house, notice(fires(model="support-bot:v1.1.0")))
    assert await actor.round() == 1
    history = await house.get("/models/support-bot/history")
    assert [(one["action"], one["label"]) for one in history[:2]] == [("rollback", "v1.0.0"), ("canary", "v1.2.0")]
    assert history[1]["state"] == "failed"
    (row,) = await actions(house)
    assert (row["action"], row["revision"]) == ("rollback", history[0]["id"])
    await eventually(lambda: served(house.publisher.current) == "support-bot:v1.0.0")


async def test_an_alert_that_two_controls_find_is_settled_by_one(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await two_versions(house)
    await permitted(house)
    await tell(house, notice(fires(model="support-bot:v1.1.0"), fires(mark="b", model="support-bot:v1.0.0")))

    async def unseen(*_: object) -> bool:
        return False

    monkeypatch.setattr(alerts_act, "_is_settled", unseen)  # each looked before the other had written
    rounds = [await AlertActor(house.control).round(), await AlertActor(house.control).round()]
    assert (sum(rounds), len(await actions(house))) == (2, 2)
    assert len(await house.get("/models/support-bot/history")) == 3
