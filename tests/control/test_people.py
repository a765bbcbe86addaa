"""Approvals are people's: a new key or another name makes nobody another person, and a key of nobody's is nobody's word."""

from typing import Any

import httpx
import pytest

from tests.control.house import House
from tests.control.test_gates import declare, gates

BODY = {"model": "bot", "label": "v1.0.0"}
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def person(house: House, name: str, role: str = "operator") -> httpx.AsyncClient:
    await house.post("/principals", {"name": name, "roles": [role]})
    return await another_key(house, name)


async def another_key(house: House, name: str) -> httpx.AsyncClient:
    made = await house.post("/keys", {"name": f"{name}-key", "principal": name})
    return house.client(made["key"])


async def pushed_by(house: House, who: httpx.AsyncClient, label: str = "v1.0.0") -> None:
    admin, house.admin = house.admin, who
    await house.push("bot", label)
    house.admin = admin


async def approve(who: httpx.AsyncClient, label: str = "v1.0.0") -> tuple[int, Any]:
    answer = await who.post("/api/v1/approvals", json=BODY | {"label": label})
    return answer.status_code, answer.json().get("error", {})


async def test_who_rotates_a_key_or_takes_another_name_is_the_same_person(house: House) -> None:
    ann = await person(house, "ann")
    await pushed_by(house, ann)
    await declare(house, approval={})
    assert (await approve(ann))[1]["code"] == "own_version"
    rotated = await another_key(house, "ann")
    assert (await approve(rotated))[1]["code"] == "own_version"
    renamed = await house.post("/principals/ann/rename", {"to": "anna"}, 200)
    assert (renamed["name"], (await house.get("/keys"))[1]["principal"]) == ("anna", "anna")
    for key in (ann, rotated, await another_key(house, "anna")):
        assert (await approve(key))[1]["code"] == "own_version"
    # Whoever is called as she was is somebody else.
    namesake = await person(house, "ann")
    assert (await approve(namesake))[0] == 201
    assert (await gates(house, "v1.0.0"))["approval"]["state"] == "passed"


async def test_two_keys_of_one_person_are_one_approval(house: House) -> None:
    await house.push("bot", "v1.0.0")
    await declare(house, approval={"count": 2})
    bob = await person(house, "bob")
    assert (await approve(bob))[0] == 201
    await house.post("/principals/bob/rename", {"to": "robert"}, 200)
    assert (await approve(await another_key(house, "robert")))[0] == 201
    told = (await gates(house, "v1.0.0"))["approval"]
    assert (told["state"], told["words"][:22]) == ("missing", "1 approval is missing,")
    assert (await approve(await person(house, "carl")))[0] == 201
    assert (await gates(house, "v1.0.0"))["approval"]["state"] == "passed"
    await house.post("/principals/robert/disable", None, 200)
    assert "robert is disabled" in (await gates(house, "v1.0.0"))["approval"]["words"]


async def test_a_key_of_nobodys_approves_nothing_until_it_is_somebodys(house: House) -> None:
    await house.push("bot", "v1.0.0")
    await declare(house, approval={})
    made = await house.post("/keys", {"name": "shared", "roles": ["operator"]})
    shared = house.client(made["key"])
    status, error = await approve(shared)
    assert (status, error["code"]) == (403, "no_principal")
    assert f"penstock keys adopt {made['id']} --principal NAME" in error["hint"]
    await house.post(f"/keys/{made['id']}/adopt", {"principal": "rita"}, 404)
    await house.post("/principals", {"name": "rita", "roles": ["operator"]})
    told = await house.post(f"/keys/{made['id']}/adopt", {"principal": "rita"}, 200)
    assert (told["principal"], told["roles"]) == ("rita", [])
    assert (await approve(shared))[0] == 201
    await house.post(f"/keys/{made['id']}/adopt", {"principal": "rita"}, 409)


async def test_what_a_key_of_nobodys_pushed_is_approved_once_it_is_known_whose_it_was(house: House) -> None:
    made = await house.post("/keys", {"name": "ci", "roles": ["developer"]})
    await pushed_by(house, house.client(made["key"]))
    await declare(house, approval={})
    bob = await person(house, "bob")
    status, error = await approve(bob)
    assert (status, error["code"]) == (409, "pusher_unknown")
    told = (await gates(house, "v1.0.0"))["approval"]
    assert (told["state"], told["command"]) == ("missing", f"penstock keys adopt {made['id']} --principal NAME")
    await house.post(f"/keys/{made['id']}/adopt", {"principal": "bob"}, 200)
    assert (await approve(bob))[1]["code"] == "own_version"
    assert (await approve(await person(house, "carl")))[0] == 201


async def test_people_are_named_once_and_the_last_administrator_stays(house: House) -> None:
    await person(house, "ann")
    assert (await house.post("/principals/ann/rename", {"to": "admin"}, 409))["error"]["param"] == "name"
    await house.post("/principals/nobody/rename", {"to": "x"}, 404)
    await house.post("/principals/ann/rename", {"to": "a b"}, 400)
    [admin] = [one for one in await house.get("/principals") if one["name"] == "admin"]
    assert admin["roles"] == ["admin"]
    made = await house.post("/keys", {"name": "second", "roles": ["admin"]})
    [first] = [one for one in await house.get("/keys") if one["principal"] == "admin"]
    await house.post(f"/keys/{first['id']}/revoke", None, 200)
    house.admin = house.client(made["key"])
    refused = await house.post(f"/keys/{made['id']}/adopt", {"principal": "ann"}, 409)
    assert "last admin's key" in refused["error"]["message"]
    tenant = await house.post("/tenants", {"name": "shop", "spec": {}})
    app = await house.post("/keys", {"name": "app", "tenant": tenant["name"]})
    await house.post(f"/keys/{app['id']}/adopt", {"principal": "ann"}, 409)
