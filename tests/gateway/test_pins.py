"""Units and conversations that keep their arm: the table that a host's workers share, and what becomes of it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.snapshot import Arm, Audience, ExperimentEntry, Slice
from penstock.experiments.assignment import compile_experiment
from penstock.gateway.pins import Pin, Pins, key_of, pinned
from tests.gateway.house import House, running
from tests.gateway.raw_client import ask, chat

shares = st.integers(0, 10_000).map(lambda buckets: buckets / 10_000)


@given(  # 16 at the most: so many have room even where all want the same place
    st.dictionaries(
        st.integers(0, 2**64 - 1),
        st.builds(Pin, st.integers(0, 49), st.integers(1, 2**32 - 1), shares),
        max_size=16,
    )
)
def test_what_was_kept_is_found(pins: dict[int, Pin]) -> None:
    table = Pins(slots=4096)
    for key, pin in pins.items():
        table.keep(key, pin)
    by_key = {key | 1: pin for key, pin in pins.items()}
    for key in pins:
        assert table.find(key) == by_key[key | 1]
    assert table.given_up == 0
    assert table.find(12345) is None or 12345 in by_key


def test_another_worker_sees_it_at_once_and_the_next_process_too(tmp_path: Path) -> None:
    one, other = Pins(tmp_path / "gateway" / "pins"), Pins(tmp_path / "gateway" / "pins")
    one.keep(7, Pin(1, 3, 0.25))
    assert other.find(7) == Pin(1, 3, 0.25)
    one.close()
    assert Pins(tmp_path / "gateway" / "pins").find(7) == Pin(1, 3, 0.25)


def test_a_full_table_gives_one_up_and_counts_it() -> None:
    table = Pins(slots=16)
    for key in range(1, 41, 2):
        table.keep(key, Pin(0, 1, 0.5))
    assert table.given_up == 4
    assert sum(table.find(key) is not None for key in range(1, 41, 2)) == 16


def test_a_slot_that_is_torn_counts_as_empty(tmp_path: Path) -> None:
    path = tmp_path / "pins"
    table = Pins(path, slots=16)
    table.keep(1, Pin(2, 5, 0.5))
    data = bytearray(path.read_bytes())
    place = next(at for at in range(0, 256, 16) if any(data[at : at + 8]))
    data[place + 8] ^= 0xFF
    path.write_bytes(bytes(data))
    assert Pins(path, slots=16).find(1) is None


def test_a_disk_that_refuses_leaves_everything_as_drawn(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    table = Pins(tmp_path / "file" / "pins")
    table.keep(1, Pin(0, 1, 0.5))
    assert table.find(1) is None
    assert table.failed


def test_the_whole_table_has_its_room_on_the_disk(tmp_path: Path) -> None:
    table = Pins(tmp_path / "pins", slots=4096)
    table.keep(1, Pin(0, 1, 0.5))
    assert (tmp_path / "pins").stat().st_blocks * 512 >= 4096 * 16, "or a full disk would end the process"


def bandit(*shares: float, epoch: int = 1, sticky: str = "unit", **changes: Any) -> ExperimentEntry:
    edges = [sum(shares[:index]) for index in range(len(shares) + 1)]
    arms = tuple(
        Arm(name=f"a{index}", pool="pool", weight=share, ranges=((edges[index], edges[index + 1]),) if share else ())
        for index, share in enumerate(shares)
    )
    fields: dict[str, Any] = {"name": "b", "seed": f"b:{epoch}", "unit": "user", "incumbent": "a0", "sticky": sticky}
    return ExperimentEntry(**{**fields, "epoch": epoch, "arms": arms, **changes})


def test_an_arm_without_traffic_keeps_nobody_and_a_lapsed_share_is_not_written() -> None:
    pins = Pins(slots=64)
    first = compile_experiment(bandit(0.0, 1.0))
    drawn = first.assign("u", 0.0)
    assert pinned(pins, first, "acme", "u", drawn) == drawn
    later = compile_experiment(bandit(0.5, 0.5, epoch=2))
    kept = pinned(pins, later, "acme", "u", later.assign("u", 0.0))
    assert (kept.arm.name, kept.epoch, kept.propensity) == ("a1", 1, 1.0)
    gone = compile_experiment(bandit(1.0, 0.0, epoch=3))
    assert pinned(pins, gone, "acme", "u", gone.assign("u", 0.0)).arm.name == "a0"
    lapsed = compile_experiment(bandit(0.0, 1.0, epoch=4, expires_at=1.0))
    assert pinned(pins, lapsed, "acme", "v", lapsed.assign("v", 2.0)).epoch == 0
    assert pinned(pins, first, "acme", "v", drawn) == drawn
    assert pinned(pins, first, "other", "u", drawn) == drawn  # units of two tenants are never one


async def arms_of(house: House, count: int, **fields: Any) -> list[str]:
    found = []
    for number in range(count):
        body = {key: value(number) if callable(value) else value for key, value in fields.items()}
        got = await ask(house.port, chat("hello", **body))
        found.append(got.headers[b"x-penstock-arm"].decode())
    return found


async def test_a_unit_keeps_its_arm_though_the_shares_turn_round(tmp_path: Path) -> None:
    async with running(tmp_path, route={"experiment": bandit(0.9, 0.1)}) as house:
        route = house.worker.gateway.index.snapshot.routes[0]
        before = await arms_of(house, 24, user=lambda number: f"u{number}")
        house.take(routes=(msgspec.structs.replace(route, experiment=bandit(0.1, 0.9, epoch=2)),))
        assert await arms_of(house, 24, user=lambda number: f"u{number}") == before
        new = await arms_of(house, 24, user=lambda number: f"new{number}")
        assert new.count("b/a1") > 12
        await house.settled()
        records = house.exchanges()
        assert {record.epoch for record in records[24:48]} == {1}  # what they do counts where they were assigned
        assert {round(record.propensity, 9) for record in records[:48]} == {0.9, 0.1}
        assert {record.epoch for record in records[48:]} == {2}


async def test_requests_that_name_nobody_take_no_room_from_those_that_do(tmp_path: Path) -> None:
    async with running(tmp_path, route={"experiment": bandit(0.5, 0.5)}) as house:
        await arms_of(house, 8)
        path = next(tmp_path.rglob("sticky"), None)
        assert path is None or not any(path.read_bytes())
        await arms_of(house, 1, user="u")
        assert any(next(tmp_path.rglob("sticky")).read_bytes())


async def test_a_conversation_keeps_its_arm_and_the_users_next_one_is_drawn_anew(tmp_path: Path) -> None:
    first, second = (
        bandit(1.0, 0.0, sticky="conversation"),
        bandit(0.0001, 0.9999, epoch=2, sticky="conversation"),
    )
    async with running(tmp_path, route={"experiment": first}) as house:
        route = house.worker.gateway.index.snapshot.routes[0]
        about = {"user": "u", "metadata": lambda number: {"session_id": f"talk {number}"}}
        assert await arms_of(house, 1, **about) == ["b/a0"]
        house.take(routes=(msgspec.structs.replace(route, experiment=second),))
        assert await arms_of(house, 2, **about) == ["b/a0", "b/a1"]
        assert await arms_of(house, 1, user="u") == ["b/a1"]  # without a conversation there is nothing to keep


@pytest.mark.parametrize("why", ["audience", "namespace", "holdout"])
async def test_who_takes_no_part_goes_where_the_route_leads_without_it(tmp_path: Path, why: str) -> None:
    gates: dict[str, dict[str, Any]] = {
        "audience": {"audience": Audience(tenants=("somebody",))},
        "namespace": {"namespace": Slice(name="n", low=0.0, high=0.0005)},
        "holdout": {"holdout": Slice(name="h", high=0.9999)},
    }
    entry = bandit(0.5, 0.5, sticky="", **gates[why])
    async with running(tmp_path, route={"experiment": entry}) as house:
        got = await ask(house.port, chat("hello", user="u1"))
        assert (got.status, got.headers[b"x-penstock-arm"]) == (200, b"")
        await house.settled()
        [record] = house.exchanges()
        assert (record.arm, record.epoch, record.propensity, record.context) == ("", 0, 1.0, f"@{why}")
        cell = house.worker.gateway.meters.cell("penstock_experiment_left_out_total", "b", why)
        assert cell.value == 1


def test_who_sends_more_units_than_there_is_room_for_makes_room_by_itself() -> None:
    table = Pins(slots=1 << 12)
    pin = Pin(1, 1, 0.5)
    quiet = [key_of(tenant, f"u{number}") for tenant in ("acme", "zoo") for number in range(150)]
    for key in quiet:
        table.keep(key, pin)
    for number in range(5 << 12):  # five times as many as there are slots
        table.keep(key_of("loud", f"u{number}"), pin)
    assert table.given_up > 4 << 12
    assert all(table.find(key) == pin for key in quiet)
    late = [key_of("late", f"u{number}") for number in range(150)]
    for key in late:
        table.keep(key, pin)
    assert all(table.find(key) == pin for key in (*quiet, *late)), (
        "who comes late has room, too, and takes it from whoever has most"
    )
    kept = sum(table.find(key_of("loud", f"u{number}")) == pin for number in range(5 << 12))
    assert kept > 3 << 10, "what nobody else needs is the loud one's"


def test_two_loud_tenants_share_the_table_about_evenly() -> None:
    table = Pins(slots=1 << 12)
    pin = Pin(0, 1, 0.5)
    for number in range(3 << 12):
        table.keep(key_of("loud", f"u{number}"), pin)
    for number in range(3 << 12):
        table.keep(key_of("louder", f"u{number}"), pin)
    has = [sum(table.find(key_of(who, f"u{n}")) == pin for n in range(3 << 12)) for who in ("loud", "louder")]
    assert min(has) > 0.6 * max(has)
