"""How soon a change is everywhere: keys that are made and revoked, over all workers of a running installation."""

from __future__ import annotations

import time
from statistics import median

import httpx
import pytest

from tests.system.starter import Up

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.timeout(240)]

ROUNDS = 5
QUIET_S = 0.3  # after the last answer of the old kind, and both workers say that they have the newest generation


def accepted(up: Up, key: str) -> bool:
    """Whether some worker takes the key: each connection is new, and goes to any of them."""
    reply = httpx.get(f"{up.gateway}/v1/models", headers={"authorization": f"Bearer {key}"}, timeout=10)
    assert reply.status_code in {200, 401}, reply.text
    return reply.status_code == 200


def is_told(control: httpx.Client) -> bool:
    """Whether both workers have what control published last."""
    heard = control.get("/gateways").json()
    generations = [one["generation"] for one in heard["gateways"]]
    return len(generations) == 2 and set(generations) == {heard["generation"]}


def settles(up: Up, control: httpx.Client, key: str, since: float, *, wanted: bool) -> float:
    """Seconds from `since` until the last answer that was not as wanted."""
    last = since
    while time.monotonic() - last < QUIET_S or not is_told(control):
        if accepted(up, key) is not wanted:
            last = time.monotonic()
        assert last - since < 30, "it never settles"
    for _ in range(10):  # of either worker
        assert accepted(up, key) is wanted
    return last - since


def test_a_new_key_and_a_revoked_one_are_known_to_all_workers_within_a_second(up: Up) -> None:
    admin = {"authorization": f"Bearer {up.secret('admin.key')}"}
    made_s, revoked_s = [], []
    with httpx.Client(base_url=f"{up.control}/api/v1", headers=admin, timeout=30) as control:
        tenant = control.get("/tenants").json()[0]["name"]
        for number in range(ROUNDS):
            made = control.post("/keys", json={"name": f"soon-{number}", "tenant": tenant})
            assert made.status_code == 201, made.text
            made_s.append(settles(up, control, made.json()["key"], time.monotonic(), wanted=True))
            revoked = control.post(f"/keys/{made.json()['id']}/revoke")
            assert revoked.status_code == 200, revoked.text
            revoked_s.append(settles(up, control, made.json()["key"], time.monotonic(), wanted=False))
    print(
        f"\nknown everywhere after {max(made_s) * 1e3:.0f} ms, refused everywhere after {max(revoked_s) * 1e3:.0f} ms"
    )
    assert median(made_s) < 1.0  # a round in which others had the machine says nothing
    assert median(revoked_s) < 1.0
