"""What is compiled, and how gateways hear of it."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
from hypothesis import given
from hypothesis import strategies as st

from penstock.control.context import Control
from penstock.control.deploy.publisher import Publisher
from penstock.control.deploy.snapshot import compile_snapshot, pools_to_run
from penstock.control.deploy.state import ActiveExperiment, BuildInfo, Deployment, ReplicaRow, Revision, State
from penstock.control.specs.policy import PolicySpec
from penstock.control.specs.resources import EnvironmentSpec, PoolSpec, RouteSpec, TenantSpec
from penstock.core.checksum import entries_checksum, result_checksum
from penstock.core.settings import Settings
from penstock.core.snapshot import Arm, ExperimentEntry, KeyEntry, Snapshot, SnapshotDelta, patched
from penstock.delivery.pools import BuildKey
from penstock.store.blobs import open_blobs
from penstock.store.sql import open_database
from tests.control.house import TOKEN, House, eventually

LABELS = ("v1.0.0", "v1.1.0", "v1.2.0")


def build(label: str) -> BuildKey:
    return BuildKey(model="bot", label=label, precision="int8")


BUILDS = {
    build(label): BuildInfo(
        key=build(label), digest=f"sha256:b{label}", version_digest=f"sha256:v{label}", folder="openvino-int8"
    )
    for label in LABELS
}


def revision(label: str, environment: str = "production", state: str = "live") -> Revision:
    return Revision(
        id=f"rev-{environment}-{label}",
        environment=environment,
        model="bot",
        number=1,
        label=label,
        digest=f"sha256:v{label}",
        state=state,
    )


def replica(label: str) -> ReplicaRow:
    return ReplicaRow(id=f"bot-{label}-int8-0", pool=f"bot-{label}-int8", url="http://127.0.0.1:1")


def deployment(wanted: str, live: str | None, warm: str | None = None, environment: str = "production") -> Deployment:
    return Deployment(
        environment=environment,
        model="bot",
        wanted=revision(wanted, environment, "live" if wanted == live else "pending"),
        live=None if live is None else revision(live, environment),
        warm=None if warm is None else revision(warm, environment, "superseded"),
    )


def spec(kind: Any, **values: Any) -> Any:
    return kind.model_validate(values)


def test_the_route_of_a_model_leads_to_what_is_live_and_not_to_what_is_wanted() -> None:
    state = State(
        generation=4,
        deployments=(deployment("v1.2.0", "v1.1.0", "v1.0.0"),),
        builds=BUILDS,
        replicas=(replica("v1.1.0"),),
    )
    snapshot = compile_snapshot(state, 9.0)
    [route] = snapshot.routes
    assert (route.name, route.to[0].pool) == ("bot", "bot-v1.1.0-int8")
    assert (snapshot.generation, snapshot.compiled_at) == (4, 9.0)
    pools = {pool.name: pool for pool in snapshot.pools}
    assert set(pools) == {f"bot-{label}-int8" for label in LABELS}
    assert pools["bot-v1.1.0-int8"].version == "bot:v1.1.0"
    assert pools["bot-v1.1.0-int8"].digest == "sha256:vv1.1.0"
    assert [r.id for r in pools["bot-v1.1.0-int8"].replicas] == ["bot-v1.1.0-int8-0"]


def test_a_declared_route_of_the_models_name_takes_its_place_and_weights_add_up() -> None:
    state = State(
        generation=1,
        deployments=(deployment("v1.1.0", "v1.1.0"),),
        builds=BUILDS,
        pools={"follow": spec(PoolSpec, build="bot@production", replicas=3)},
        routes={
            "bot": spec(
                RouteSpec, to=[{"model": "bot", "weight": 1.0}, {"pool": "follow", "weight": 2.0}, {"model": "other"}]
            )
        },
        policies={"default": spec(PolicySpec)},
    )
    snapshot = compile_snapshot(state, 0.0)
    [route] = snapshot.routes
    assert {t.pool: t.weight for t in route.to} == {"bot-v1.1.0-int8": 3.0, "other@production": 1.0}
    assert route.policy == "default"
    pools = {pool.name: pool for pool in snapshot.pools}
    assert pools["other@production"].replicas == ()
    [wanted] = pools_to_run(state)
    assert wanted.replicas == 3


def test_what_engines_understand_and_whose_their_prefix_cache_is() -> None:
    state = State(
        generation=1,
        deployments=(deployment("v1.0.0", "v1.0.0"),),
        builds=BUILDS,
        pools={
            "alone": spec(PoolSpec, build="bot:v1.1.0", prefix_cache="shared"),
            "also": spec(PoolSpec, build="bot:v1.2.0", prefix_cache="shared"),
            "minds": spec(PoolSpec, build="bot:v1.2.0"),
            "gpu": spec(PoolSpec, adopt=["http://127.0.0.1:1"], dialect="vllm"),
            "some": spec(PoolSpec, adopt=["http://127.0.0.1:2"]),
        },
        routes={"told": spec(RouteSpec, to=[{"pool": "gpu"}], resume=True)},
    )
    snapshot = compile_snapshot(state, 0.0)
    assert {pool.name: (pool.dialect, pool.prefix_cache) for pool in snapshot.pools} == {
        "bot-v1.0.0-int8": ("penstock", "separate"),
        "bot-v1.1.0-int8": ("penstock", "shared"),
        "bot-v1.2.0-int8": ("penstock", "separate"),
        "gpu": ("vllm", "separate"),
        "some": ("openai", "separate"),
    }
    assert {pool.name: pool.replica(0) for pool in pools_to_run(state)} == {
        "bot-v1.0.0-int8": "bot-v1.0.0-int8-0",
        "bot-v1.1.0-int8": "bot-v1.1.0-int8-shared0",
        "bot-v1.2.0-int8": "bot-v1.2.0-int8-0",
    }
    assert {route.name: route.resume for route in snapshot.routes} == {"bot": False, "told": True}


def test_other_environments_are_served_under_their_name_only_if_they_say_so() -> None:
    staged = deployment("v1.2.0", "v1.2.0", environment="staging")
    quiet = State(generation=1, deployments=(staged,), builds=BUILDS)
    assert compile_snapshot(quiet, 0.0).routes == ()
    assert pools_to_run(quiet) == ()
    loud = msgspec.structs.replace(quiet, environments={"staging": spec(EnvironmentSpec, serve=True)})
    assert [r.name for r in compile_snapshot(loud, 0.0).routes] == ["bot@staging"]
    assert [p.name for p in pools_to_run(loud)] == ["bot-v1.2.0-int8"]


def test_an_experiment_is_published_once_every_arm_has_a_replica() -> None:
    entry = ExperimentEntry(
        name="x",
        epoch=1,
        seed="s",
        unit="user",
        incumbent="a",
        arms=(Arm(name="a", pool="bot-v1.0.0-int8", weight=0.5), Arm(name="b", pool="bot-v1.1.0-int8", weight=0.5)),
    )
    state = State(
        generation=1,
        deployments=(deployment("v1.0.0", "v1.0.0"),),
        builds=BUILDS,
        replicas=(replica("v1.0.0"),),
        experiments=(ActiveExperiment(route="bot", entry=entry, builds=(build("v1.0.0"), build("v1.1.0"))),),
    )
    assert {p.name for p in pools_to_run(state)} == {"bot-v1.0.0-int8", "bot-v1.1.0-int8"}
    assert compile_snapshot(state, 0.0).routes[0].experiment is None
    ready = msgspec.structs.replace(state, replicas=(replica("v1.0.0"), replica("v1.1.0")))
    assert compile_snapshot(ready, 0.0).routes[0].experiment == entry


names = st.sampled_from(["a", "b", "c"])
states = st.builds(
    lambda tenants, keys, pools, routes, labels, live: State(
        generation=0,
        tenants={t: spec(TenantSpec, weight=w) for t, w in tenants.items()},
        keys=tuple(KeyEntry(id=k, hash=k, tenant=t) for k, t in keys.items()),
        pools={p: spec(PoolSpec, adopt=[f"http://127.0.0.1:{port}"]) for p, port in pools.items()},
        routes={r: spec(RouteSpec, to=[{"pool": p}]) for r, p in routes.items()},
        builds=BUILDS,
        deployments=(deployment(labels[0], live, labels[1]),),
        replicas=tuple(replica(label) for label in labels),
    ),
    st.dictionaries(names, st.sampled_from([1.0, 2.0])),
    st.dictionaries(names, names),
    st.dictionaries(names, st.integers(1, 3)),
    st.dictionaries(names, names),
    st.permutations(LABELS),
    st.sampled_from([None, *LABELS]),
)


@given(states, states)
def test_old_and_delta_give_new(before: State, after: State) -> None:
    old = compile_snapshot(before, 1.0)
    new = compile_snapshot(msgspec.structs.replace(after, generation=1), 2.0)
    from penstock.core.snapshot import difference

    delta = msgspec.json.decode(msgspec.json.encode(difference(old, new)), type=SnapshotDelta)
    rebuilt = patched(old, delta)
    assert compiled_as_sets(rebuilt) == compiled_as_sets(new)


def compiled_as_sets(snapshot: Snapshot) -> list[Any]:
    tables = ("keys", "tenants", "routes", "pools", "policies")
    return [snapshot.generation, *(sorted(map(repr, getattr(snapshot, table))) for table in tables)]


@given(states)
def test_every_target_of_every_route_is_a_pool_and_every_key_has_its_tenant(state: State) -> None:
    snapshot = compile_snapshot(state, 0.0)
    pools = {pool.name for pool in snapshot.pools}
    assert all(target.pool in pools for route in snapshot.routes for target in route.to)
    assert {key.tenant for key in snapshot.keys} <= {tenant.name for tenant in snapshot.tenants}
    assert len({route.name for route in snapshot.routes}) == len(snapshot.routes)
    assert len(pools) == len(snapshot.pools)


class Gateway:
    """A gateway worker's side of the interface."""

    def __init__(self, house: House) -> None:
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=house.app),
            base_url="http://control/internal/v1",
            headers={"authorization": f"Bearer {TOKEN}"},
            timeout=60,
        )
        self.snapshot: Snapshot | None = None

    async def poll(self, wait: float) -> str:
        after = self.snapshot.generation if self.snapshot is not None else -1
        response = await self.client.get(f"/snapshot?after={after}&wait={wait}")
        if response.status_code == 204:
            return "nothing"
        body = response.json()
        if "delta" in body:
            assert self.snapshot is not None
            delta = msgspec.convert(body["delta"], SnapshotDelta)
            self.snapshot = patched(self.snapshot, delta)
            reached = self.snapshot
            assert delta.checksum == result_checksum(entries_checksum(reached), reached.generation, reached.environment)
            return "delta"
        self.snapshot = msgspec.convert(body["snapshot"], Snapshot)
        return "snapshot"


async def test_gateways_hear_of_a_change_at_once_as_a_delta_that_gives_the_whole(house: House) -> None:
    gateway = Gateway(house)
    await eventually(lambda: house.publisher.current is not None)
    assert await gateway.poll(0) == "snapshot"
    assert await gateway.poll(0.05) == "nothing"
    delays = []
    for number in range(5):
        waiting = asyncio.create_task(gateway.poll(30))
        await asyncio.sleep(0.02)
        await house.post("/tenants", {"name": f"t{number}"})
        begun = time.monotonic()
        assert await waiting == "delta"
        delays.append(time.monotonic() - begun)
    assert min(delays) < 0.1
    assert gateway.snapshot is not None
    assert house.publisher.current is not None
    assert compiled_as_sets(gateway.snapshot) == compiled_as_sets(house.publisher.current)
    assert {t.name for t in gateway.snapshot.tenants} == {f"t{n}" for n in range(5)}


async def test_a_gateway_of_an_unknown_generation_gets_the_whole(small_house: House) -> None:
    gateway = Gateway(small_house)
    await eventually(lambda: small_house.publisher.current is not None)
    gateway.snapshot = Snapshot(generation=999_999)
    assert await gateway.poll(5) == "snapshot"


async def test_what_gateways_report_is_shown(small_house: House) -> None:
    gateway = Gateway(small_house)
    told = {"worker": "gateway-0", "pid": 7, "generation": 3, "at": 1.0}
    assert (await gateway.client.post("/report", json=told)).status_code == 200
    assert (await gateway.client.post("/report", content=b"{")).status_code == 400
    shown = await small_house.get("/gateways")
    assert [(g["worker"], g["generation"]) for g in shown["gateways"]] == [("gateway-0", 3)]
    fault = {"kind": "route", "name": "chat", "why": "its pool is not there"}
    elsewhere = {**told, "host": "b", "refused": "no", "faults": [fault], "fault_count": 3}
    assert (await gateway.client.post("/report", json=elsewhere)).status_code == 200
    first, second = (await small_house.get("/gateways"))["gateways"]
    assert (first["host"], first["faults"], first["refused"]) == ("", [], "")
    assert (second["host"], second["faults"], second["fault_count"], second["refused"]) == ("b", [fault], 3, "no")


async def test_deltas_over_several_generations_lead_to_the_newest_too(house: House) -> None:
    slow, gateway = Gateway(house), Gateway(house)
    await eventually(lambda: house.publisher.current is not None)
    await slow.poll(0)
    for name in ("a", "b", "c"):
        await gateway.poll(0.05)
        await house.post("/tenants", {"name": name})
        assert await gateway.poll(30) in {"snapshot", "delta"}
    assert (await house.admin.delete("/api/v1/tenants/b")).status_code == 204
    await eventually(lambda: {t.name for t in house.publisher.current.tenants} == {"a", "c"})  # type: ignore[union-attr]
    assert await slow.poll(30) == "delta"
    assert slow.snapshot is not None
    assert {t.name for t in slow.snapshot.tenants} == {"a", "c"}


@asynccontextmanager
async def another_publisher(database_url: str, data: Path) -> AsyncIterator[Publisher]:
    """Of another control process on the same database; it runs when told to."""
    database = await open_database(database_url)
    other = Control(
        settings=Settings(),
        data=data,
        database=database,
        blobs=open_blobs("", data / "blobs", database),
        service_token=TOKEN,
        clock=time.time,
        entropy=os.urandom,
    )
    try:
        yield Publisher(other)
    finally:
        await database.close()


async def test_a_change_by_another_control_process_is_published_too(
    house: House, database_url: str, tmp_path: Path
) -> None:
    async with another_publisher(database_url, tmp_path) as publisher:
        task = asyncio.create_task(publisher.run())
        try:
            await house.post("/tenants", {"name": "acme"})
            await eventually(
                lambda: publisher.current is not None and any(t.name == "acme" for t in publisher.current.tenants)
            )
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_control_process_that_lags_leads_no_gateway_back(
    house: House, database_url: str, tmp_path: Path
) -> None:
    async with another_publisher(database_url, tmp_path) as publisher:
        old = await publisher.refresh()
        await house.post("/tenants", {"name": "acme"})
        await eventually(
            lambda: house.publisher.current is not None and house.publisher.current.generation > old.generation
        )
        assert house.publisher.current is not None
        newest = house.publisher.current.generation
        assert publisher.current is old, "it has not looked since"
        assert await publisher.newer(newest, 0.0) is None
        step = await publisher.newer(old.generation, 0.0)
        assert isinstance(step, SnapshotDelta)
        assert step.generation == newest
        whole = await publisher.newer(newest + 100, 0.0)
        assert isinstance(whole, Snapshot), "a generation that the database does not have"
