"""Promotion and roll-back under load: what answers changes within a second, and no request fails."""

import time
from collections.abc import Iterator

import pytest

from tests.system.program import penstock
from tests.system.starter import Up, running
from tests.system.traffic import Traffic
from tests.system.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.timeout(400)]
OLD, NEW = "support-bot:v1.0.0", "support-bot:v1.1.0"
TRIES = 3  # on a machine whose cores others have too


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running(tmp_path_factory.mktemp("deliver") / "penstock-data", "--workers", "2") as up:
        yield up


def accepted(up: Up) -> float:
    """When control took the newest change of production, on the monotonic clock."""
    newest = next(r for r in penstock(up, "history", "support-bot")["revisions"] if r["environment"] == "production")
    return float(newest["created_at"]) - time.time() + time.monotonic()


def switched(traffic: Traffic, to: str, since: float) -> float:
    """Seconds from `since` until the last request began that another version than `to` answered."""
    until(lambda: len([s for s in traffic.seen if s.began > since + 1.5 and s.version == to]) >= 20 or None, 60)
    late = [seen.began for seen in traffic.seen if seen.began >= since and seen.status == 200 and seen.version != to]
    return max(late, default=since) - since


def test_promotion_and_rollback_take_less_than_a_second_under_load(own: Up) -> None:
    penstock(own, "promote", OLD, "--to", "production")  # starts its replica, so that it is warm
    took: list[tuple[float, float]] = []
    with Traffic(own.gateway, own.secret("demo.key")) as traffic:
        until(lambda: any(seen.version == OLD for seen in traffic.seen) or None, 30)
        while not took or (max(took[-1]) >= 1.0 and len(took) < TRIES):
            penstock(own, "promote", NEW, "--to", "production")
            promoted = switched(traffic, NEW, accepted(own))
            penstock(own, "rollback", "support-bot", "--in", "production")
            took.append((promoted, switched(traffic, OLD, accepted(own))))
    assert max(took[-1]) < 1.0, took
    assert not traffic.failed()
    revisions = penstock(own, "history", "support-bot")["revisions"]
    assert [(r["action"], r["label"]) for r in revisions if r["environment"] == "production"] == [
        *[("rollback", "v1.0.0"), ("promote", "v1.1.0")] * len(took),
        ("promote", "v1.0.0"),
        ("promote", "v1.1.0"),
    ]
