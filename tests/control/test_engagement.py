"""Sessions, engagement and conversions: from records to the API, the overview and the metrics, each record once."""

from typing import Any

from penstock.control.figures.engagement_measures import REST, EngagementMeasures, bounded
from penstock.control.ingest.engagement import COUNTS, forget_visits
from penstock.core.exchange import Exchange, Observation, Pair, Record
from penstock.store import schema_engagement as tables
from tests.control.bed import T0, Bed

MINUTE = 60.0


def asked(name: str, at: float, **more: Any) -> Exchange:
    told: dict[str, Any] = {"tenant": "a", "route": "bot", "version": "bot:v1", "user": "u1", **more}
    return Exchange(id=name, at=T0 + at, **told)


def said(identity: str, at: float, kind: Any = "event", **more: Any) -> Observation:
    told: dict[str, Any] = {"tenant": "a", **more}
    return Observation(id=identity, at=T0 + at, received=T0 + at, kind=kind, **told)


async def rows(bed: Bed, by: str = "", **query: Any) -> list[dict[str, Any]]:
    answer = await bed.call("GET", "/engagement", **{"from": T0 - 86400, "to": T0 + 86400, "by": by, **query})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["rows"]
    return found


async def counters(bed: Bed) -> dict[tuple[str, ...], float]:
    measures = EngagementMeasures()
    async with bed.control.database.read() as connection:
        await measures.read(connection)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in measures.collect()
        for sample in family.samples
        if sample.value
    }


DAY = [
    asked("r1", 0.0),
    asked("r2", 5 * MINUTE, version="bot:v2"),  # the session stays where it began
    asked("r3", 10 * MINUTE, outcome="refused"),  # was not answered
    asked("r4", 100 * MINUTE),
    asked("r5", 0.0, user="u2", session="s9"),
    asked("r6", 1 * MINUTE, user="u3", session="s9"),  # one session, whoever asks
    asked("r7", 0.0, user=""),  # nobody's
    asked("r8", 0.0, tenant="b", route="other"),
    asked("r9", 0.0, user="u4", pair=Pair(arm="new", of="r1")),  # a copy that nobody saw
]
WORDS = [
    said("e1", 6 * MINUTE, name="conversion", request="r2"),
    said("e2", 7 * MINUTE, name="conversion", request="r2"),  # the request has converted
    said("e3", 8 * MINUTE, name="viewed", request="r1"),
    said("e4", 110 * MINUTE, name="conversion", user="u1"),
    said("e5", 110 * MINUTE, name="conversion", user="nobody"),
    said("f1", 6 * MINUTE, "feedback", request="r1", rating=1.0),
    said("p1", 6 * MINUTE, "report", request="r1", name="wrong"),
    said("x1", 6 * MINUTE, tenant="b", name="conversion", request="r1"),  # of another tenant: not counted
]


async def test_they_are_counted_by_their_definition(both: Bed) -> None:
    both.now = T0 + 2 * 3600
    await both.send([*DAY, *WORDS])
    by_place = {(row["tenant"], row["route"], row["version"]): row for row in await rows(both, "tenant,route,version")}
    assert set(by_place) == {("a", "bot", "bot:v1"), ("a", "bot", "bot:v2"), ("a", "", ""), ("b", "other", "bot:v1")}
    assert by_place["a", "bot", "bot:v1"] == {
        "tenant": "a",
        "route": "bot",
        "version": "bot:v1",
        "sessions": 3,
        "engaged": 2,
        "session_requests": 5,
        "events": 2,
        "conversions": 1,
        "feedback": 1,
        "reports": 1,
        "engagement_rate": 2 / 3,
        "requests_per_session": 5 / 3,
        "session_s": (5 * MINUTE + 1 * MINUTE) / 3,
        "conversion_rate": 1 / 3,
    }
    assert (by_place["a", "bot", "bot:v2"]["conversions"], by_place["a", "bot", "bot:v2"]["events"]) == (1, 2)
    assert by_place["a", "bot", "bot:v2"]["conversion_rate"] is None
    assert by_place["a", "", ""]["conversions"] == 1
    own = await both.call("GET", "/engagement", key="guest", **{"from": T0 - 60, "to": T0 + 86400, "by": "tenant"})
    assert [row["tenant"] for row in own.json()["rows"]] == ["b"]
    overview = (await both.call("GET", "/overview", window_s=3 * 3600)).json()
    assert (overview["engagement"]["sessions"], overview["engagement"]["conversions"]) == (4, 3)


async def test_batches_and_repeats_change_nothing(both: Bed) -> None:
    records: list[Record] = [*DAY, *WORDS]
    for record in records:
        await both.send([record])
    await both.send(records, source="w2")  # two gateways took the same words, or a journal came back
    one_by_one = await rows(both, "tenant,route,version")
    assert sum(row["sessions"] for row in one_by_one) == 4
    assert sum(row["session_requests"] for row in one_by_one) == 6
    assert sum(row["conversions"] for row in one_by_one) == 3
    assert sum(row["feedback"] for row in one_by_one) == 1
    found = await counters(both)
    assert found["penstock_sessions_total", "a", "bot", "bot:v1"] == 3
    assert found["penstock_session_seconds_total", "a", "bot", "bot:v1"] == 6 * MINUTE
    assert sum(value for key, value in found.items() if key[0] == "penstock_conversions_total") == 3


async def test_they_are_told_by_time_and_what_is_wrong_is_refused(both: Bed) -> None:
    await both.send([*DAY, *WORDS])
    by_hour = await rows(both, "hour", tenant="a", route="bot")
    assert [(row["at"], row["sessions"]) for row in by_hour] == [(T0, 2), (T0 + 3600, 1)]
    for wrong in ({"by": "arm"}, {"by": "hour,day"}, {"from": T0, "to": T0 - 1}):
        assert (await both.call("GET", "/engagement", **wrong)).status_code == 400


async def test_sessions_that_are_over_are_forgotten_and_what_was_counted_stays(both: Bed) -> None:
    await both.send(DAY)
    before = await counters(both)
    async with both.control.database.write() as connection:
        assert await forget_visits(connection, T0) == 0
        assert await forget_visits(connection, T0 + 3 * 86400) == 3
    assert await both.table(tables.visits) == []
    assert await counters(both) == before
    await both.send([asked("r10", 3 * 86400)])
    assert (await counters(both))["penstock_sessions_total", "a", "bot", "bot:v1"] == 4


def test_series_are_bounded_and_nothing_is_lost() -> None:
    made = [
        {"tenant": f"t{n}", "route": "r", "version": "v"} | dict.fromkeys(COUNTS, 0) | {"sessions": n}
        for n in range(10)
    ]
    told = bounded(made, most=4)
    assert [labels[0] for labels, _ in told] == ["t0", "t1", "t2", "t3", REST]
    assert sum(counts["sessions"] for _, counts in told) == 45
    assert bounded(made[:4], most=4)[-1][0][0] == "t3"
