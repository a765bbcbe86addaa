"""Blocks through the API: a version that is blocked is deployed again only after somebody has cleared it."""

from tests.control.house import House


async def live(house: House, label: str) -> None:
    await house.push("support-bot", label)
    response = await house.admin.post("/api/v1/promote?wait=20", json={"model": "support-bot", "label": label})
    assert response.json()["state"] == "live", response.text


async def test_a_blocked_version_is_refused_until_it_is_cleared(house: House) -> None:
    await live(house, "v1.0.0")
    await live(house, "v1.1.0")
    body = {"model": "support-bot", "label": "v1.1.0", "environment": "production", "reason": "It swears."}
    await house.post("/rollback?wait=20", {"model": "support-bot"})
    [block] = await house.post("/blocks", body)
    assert (block["label"], block["principal"], block["cleared_at"]) == ("v1.1.0", "admin", None)
    assert len(await house.post("/blocks", body)) == 1
    refused = await house.post("/promote", {"model": "support-bot", "label": "v1.1.0"}, 409)
    assert refused["error"]["code"] == "version_blocked"
    assert "It swears." in refused["error"]["message"]
    refused = await house.post("/rollback", {"model": "support-bot", "to": "v1.1.0"}, 409)
    assert refused["error"]["code"] == "version_blocked"
    await house.post("/promote", {"model": "support-bot", "label": "v1.1.0", "environment": "staging"})

    assert await house.post("/blocks/clear", {**body, "reason": "It was the tokenizer."}, 200) == []
    assert await house.get("/blocks") == []
    [told] = await house.get("/blocks?all=true")
    assert (told["cleared_by"], told["cleared_reason"]) == ("admin", "It was the tokenizer.")
    await house.post("/promote", {"model": "support-bot", "label": "v1.1.0"})
    missing = await house.post("/blocks/clear", body, 404)
    assert "not blocked" in missing["error"]["message"]


async def test_a_roll_back_for_cause_blocks_what_it_leaves(house: House) -> None:
    await live(house, "v1.0.0")
    await live(house, "v1.1.0")
    wrong = await house.post("/rollback", {"model": "support-bot", "block": True}, 400)
    assert "reason" in wrong["error"]["message"]
    revision = await house.post("/rollback?wait=20", {"model": "support-bot", "block": True, "reason": "It swears."})
    assert revision["label"] == "v1.0.0"
    [block] = await house.get("/blocks")
    assert (block["label"], block["reason"]) == ("v1.1.0", "It swears.")
    refused = await house.post("/promote", {"model": "support-bot", "label": "v1.1.0"}, 409)
    assert refused["error"]["code"] == "version_blocked"


async def test_a_block_needs_a_reason_and_a_version(house: House) -> None:
    await house.push("support-bot", "v1.0.0")
    await house.post("/blocks", {"model": "support-bot", "label": "v1.0.0", "reason": ""}, 400)
    await house.post("/blocks", {"model": "support-bot", "label": "v9.0.0", "reason": "x"}, 404)
