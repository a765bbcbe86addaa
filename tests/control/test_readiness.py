"""Readiness of a version by what the system holds and what people have signed."""

from typing import Any

from penstock.control.versions.signatures import sealing_under
from penstock.store.schema_versions import readiness_answers
from tests.control.house import House
from tests.control.test_versions_told import NAMED, push


async def lines(house: House, label: str = "v1.0.0") -> dict[str, Any]:
    found = await house.get(f"/models/m/versions/{label}/readiness?environment=staging")
    return {"score": found["score"], "groups": found["groups"]} | {one["id"]: one for one in found["lines"]}


async def test_readiness_is_drawn_from_what_was_done_and_signed(house: House) -> None:
    house.control.sealing = sealing_under(b"k" * 32)
    await house.post("/datasets", {"name": "talks", "spec": NAMED})
    metadata = {
        "training": {"data": [{"dataset": "talks"}], "code": "train.py"},
        "hyperparameters": {"seed": 1},
    }
    await push(house, "v1.0.0", metadata)
    before = await lines(house)
    assert before["score"] == 0.0
    assert before["data-4"]["points"] == 1.0
    assert before["infrastructure-1"]["points"] == 0.5
    assert before["infrastructure-7"] == before["infrastructure-7"] | {
        "points": 0.0,
        "command": "penstock rollback m --in staging",
    }
    await push(house, "v1.1.0")
    for label in ("v1.0.0", "v1.1.0"):
        await house.post("/promote?wait=20", {"model": "m", "label": label, "environment": "staging"})
    await house.post("/rollback?wait=20", {"model": "m", "environment": "staging"})
    after = await lines(house)
    assert after["infrastructure-7"]["points"] == 1.0
    assert "rolled back to v1.0.0" in after["infrastructure-7"]["words"]

    await house.post("/signers", {"name": "team"})
    answer = {"test": "model-2", "text": "They agree, over a month.", "signer": "team"}
    await house.post("/models/m/versions/v1.0.0/readiness", answer)
    signed = await lines(house)
    assert signed["model-2"]["points"] == 0.5
    assert "says admin, signed by team: They agree" in signed["model-2"]["words"]
    assert (await lines(house, "v1.1.0"))["model-2"]["points"] == 0.0, "of the other version nobody has said so"
    unknown = await house.post("/models/m/versions/v1.0.0/readiness", answer | {"test": "model-9"}, status=400)
    assert unknown["error"]["param"] == "test"

    async with house.control.database.write() as connection:
        await connection.execute(readiness_answers.update().values(text="They agree perfectly."))
    assert (await lines(house))["model-2"]["points"] == 0.0, "what was changed was not signed"
