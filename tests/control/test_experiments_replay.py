"""A replay from the stored records: the same counts and the same verdict, bit for bit; and it says so when they are not."""

import random
from typing import Any

import msgspec
import pytest
from sqlalchemy import delete, select, update

from penstock.core.exchange import Exchange, Record
from penstock.store import schema_experiments as tables
from tests.control.bed import CANARY, T0, Bed, assigned, exchange, feedback
from tests.control.histories import EVERYTHING, entry_of, history
from tests.control.test_pairs import INTERLEAVED, SHADOW, copy, preference, shown


async def replayed(bed: Bed, verdicts: int = 5) -> dict[str, Any]:
    answer = await bed.call("GET", "/experiments/e/replay", verdicts=verdicts)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def look(bed: Bed) -> None:
    bed.now += 5
    await bed.evaluator.round()


def assert_equal(told: dict[str, Any]) -> None:
    assert told["differences"] == []
    assert (told["equal"], told["same_counts"], told["same_verdict"]) == (True, True, True)


async def test_what_was_counted_in_many_batches_is_counted_again_in_one(both: Bed) -> None:
    await both.send([exchange(900_000 + n, user=f"u{n % 90}", at=T0 - 100, cost_nanousd=n * 7) for n in range(300)])
    await both.begin(EVERYTHING)
    records = history(await entry_of(both))
    for begin in range(0, len(records), 97):
        assert (await both.send(records[begin : begin + 97])).status_code == 200
        if begin < 400:  # what comes after the last verdict must not be in it
            await look(both)
    told = await replayed(both)
    assert_equal(told)
    assert told["records"] == len(records)
    assert 5 <= len(told["verdicts"]) <= 6
    assert [one["records"] for one in told["verdicts"]] == sorted(one["records"] for one in told["verdicts"])
    assert told["verdicts"][-1]["verdict"]["looks"]


async def test_a_ramp_is_replayed_epoch_by_epoch(bed: Bed) -> None:
    """Users come back in a later epoch, and bad events of the earlier one are remembered whatever the batches were."""
    plan = CANARY["plan"] | {"steps": [0.3, 0.6, 1.0], "step_s": 1, "step_units": 5}
    await bed.begin(CANARY | {"plan": plan, "guardrails": [{"metric": "error_rate"}, {"metric": "success"}]})
    rng = random.Random(5)
    epochs = set()
    for turn in range(8):
        bed.now += 5
        records: list[Record] = []
        for one in assigned(await entry_of(bed), range(60), bed.now):
            number = turn * 100 + int(one.user[1:])
            epochs.add(one.epoch)
            records.append(
                msgspec.structs.replace(one, id=f"req_{number:06d}", outcome="error" if rng.random() < 0.05 else "ok")
            )
            about = turn * 100 + rng.randrange(60) if turn % 2 else max(0, (turn - 1) * 100 + rng.randrange(60))
            records.append(feedback(about, id=f"f{number}", received=bed.now, success=rng.random() < 0.8))
        for begin in range(0, len(records), 53):
            assert (await bed.send(records[begin : begin + 53])).status_code == 200
        await bed.hear()
        await look(bed)
    assert len(epochs) >= 2
    assert_equal(await replayed(bed))


@pytest.mark.parametrize("spec", [SHADOW, INTERLEAVED], ids=["shadow", "interleaved"])
async def test_pairs_and_preferences_are_replayed(bed: Bed, spec: dict[str, Any]) -> None:
    await bed.begin(spec)
    rng = random.Random(6)
    records: list[Record] = []
    for number in range(60):
        if spec is SHADOW:
            records.append(copy(number, rng.gauss(0.0, 0.2)))
        else:
            records.append(preference(number, rng.choice((0, 1, "tie", 7))))
            records.append(shown(number, ("new", "control")))
    await bed.send(records)
    await look(bed)
    assert_equal(await replayed(bed))


async def test_after_it_was_put_away_nothing_more_is_counted_in_either(bed: Bed) -> None:
    await bed.begin(EVERYTHING)
    records = history(await entry_of(bed))
    await bed.send(records[:300])
    await look(bed)
    for action in ("stop", "archive"):
        assert (await bed.call("POST", f"/experiments/e/{action}")).status_code == 200
    await bed.send(records[300:])
    told = await replayed(bed)
    assert_equal(told)
    assert told["records"] == 300


async def test_records_that_are_gone_or_changed_are_told(bed: Bed) -> None:
    await bed.begin(EVERYTHING)
    await bed.send(history(await entry_of(bed)))
    await look(bed)
    async with bed.control.database.write() as connection:
        row = (await connection.execute(select(tables.exchanges).limit(1))).one()
        one = msgspec.msgpack.decode(row.record, type=Exchange)
        other = msgspec.msgpack.encode(msgspec.structs.replace(one, cost_nanousd=one.cost_nanousd + 1))
        await connection.execute(update(tables.exchanges).where(tables.exchanges.c.id == row.id).values(record=other))
    told = await replayed(bed)
    assert (told["equal"], told["same_counts"], told["same_verdict"]) == (False, False, False)
    assert all("cost" in said for said in told["differences"])
    async with bed.control.database.write() as connection:
        await connection.execute(delete(tables.exchanges).where(tables.exchanges.c.id == row.id))
    assert "moments" in (await replayed(bed))["differences"][0]


async def test_a_draft_has_nothing_to_replay(bed: Bed) -> None:
    created = await bed.call("POST", "/experiments", {"name": "e", "spec": EVERYTHING})
    assert created.status_code == 201, created.text
    refused = await bed.call("GET", "/experiments/e/replay")
    assert refused.status_code == 409
    assert "has not started" in refused.json()["error"]["message"]
    assert (await bed.call("GET", "/experiments/nobody/replay")).status_code == 404
