"""The plan of replicas: what it does, and that doing it leads to what is wanted."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from penstock.delivery.plan import (
    GRACE_S,
    START_S,
    UNREADY_S,
    Desired,
    GiveUp,
    GoLive,
    Observed,
    Pending,
    Publish,
    SeenReplica,
    Start,
    Stop,
    Unpublish,
    plan,
)
from penstock.delivery.pools import BuildKey, Want, WantedPool, wanted_pools

NOW = 1000.0


def pool(label: str, replicas: int = 1, shared: bool | None = None) -> WantedPool:
    key = BuildKey(model="m", label=label, precision="int8")
    [made] = wanted_pools([Want(build=key, replicas=replicas, prefix_cache=shared)])
    return made


A, B = pool("v1.0.0"), pool("v1.1.0")


def seen(identity: str, **values: object) -> SeenReplica:
    return SeenReplica(id=identity, url=f"http://{identity}", **values)  # type: ignore[arg-type]


def test_one_pool_a_build_with_the_largest_wish() -> None:
    key = BuildKey(model="m", label="v1.0.0", precision="int8")
    [made] = wanted_pools([Want(build=key, replicas=1, by="x"), Want(build=key, replicas=3, by="y")])
    assert (made.name, made.replicas, made.by) == ("m-v1.0.0-int8", 3, ("x", "y"))


def test_what_is_missing_is_started_once() -> None:
    assert plan(Desired(pools=(A,)), Observed(), NOW) == [Start(id="m-v1.0.0-int8-0", pool=A.name)]
    assert plan(Desired(pools=(A,)), Observed(busy=frozenset({"m-v1.0.0-int8-0"})), NOW) == []


def test_what_is_only_kept_warm_is_started_after_the_rest() -> None:
    warm = msgspec.structs.replace(B, urgent=False)
    desired = Desired(pools=(A, warm))
    assert plan(desired, Observed(), NOW) == [Start(id="m-v1.0.0-int8-0", pool=A.name)]
    loading = seen("m-v1.0.0-int8-0")
    assert plan(desired, Observed(replicas=(loading,)), NOW) == []
    for there in (seen(loading.id, ready=True), seen(loading.id, broken=True)):
        published = {there.id: there.url} if there.ready else {}
        assert plan(desired, Observed(replicas=(there,), published=published), NOW) == [
            Start(id="m-v1.1.0-int8-0", pool=B.name)
        ]


def test_a_replica_is_published_when_it_is_ready_and_the_revision_goes_live_with_it() -> None:
    desired = Desired(pools=(A,), pending=(Pending(revision="r", pool=A.name, since=NOW),))
    assert plan(desired, Observed(replicas=(seen("m-v1.0.0-int8-0"),)), NOW) == []
    ready = seen("m-v1.0.0-int8-0", ready=True)
    assert plan(desired, Observed(replicas=(ready,)), NOW) == [
        Publish(id=ready.id, pool=A.name, url=ready.url),
        GoLive(revision="r"),
    ]
    moved = Observed(replicas=(ready,), published={ready.id: "http://elsewhere"})
    assert Publish(id=ready.id, pool=A.name, url=ready.url) in plan(Desired(pools=(A,)), moved, NOW)


def test_a_replica_that_is_not_wanted_leaves_the_snapshot_before_it_stops() -> None:
    old = seen("m-v1.0.0-int8-0", ready=True)
    observed = Observed(replicas=(old,), published={old.id: old.url})
    assert plan(Desired(), observed, NOW) == [Unpublish(id=old.id)]
    released = Observed(replicas=(old,), released={old.id: NOW})
    assert plan(Desired(), released, NOW + GRACE_S / 2) == []
    assert plan(Desired(), released, NOW + GRACE_S) == [Stop(id=old.id)]


def test_a_lost_replica_leaves_the_snapshot_and_is_started_again() -> None:
    observed = Observed(published={"m-v1.0.0-int8-0": "http://x"})
    assert plan(Desired(pools=(A,)), observed, NOW) == [
        Start(id="m-v1.0.0-int8-0", pool=A.name),
        Unpublish(id="m-v1.0.0-int8-0"),
    ]


def test_engines_remember_prompts_for_all_only_if_nobody_minds() -> None:
    key = BuildKey(model="m", label="v1.0.0", precision="int8")
    for says, shared in (
        ([None], False),
        ([True], True),
        ([None, True], True),
        ([True, False], False),
        ([False, None], False),
    ):
        [made] = wanted_pools([Want(build=key, prefix_cache=say) for say in says])
        assert made.prefix_cache is shared, says


def test_replicas_that_are_started_otherwise_take_the_place_of_those_that_ran_once_they_are_ready() -> None:
    shared = msgspec.structs.replace(A, prefix_cache=True)
    old = seen("m-v1.0.0-int8-0", ready=True)
    observed = Observed(replicas=(old,), published={old.id: old.url})
    assert plan(Desired(pools=(shared,)), observed, NOW) == [Start(id="m-v1.0.0-int8-shared0", pool=A.name)]
    loading = msgspec.structs.replace(observed, replicas=(old, seen("m-v1.0.0-int8-shared0")))
    assert plan(Desired(pools=(shared,)), loading, NOW) == []
    new = seen("m-v1.0.0-int8-shared0", ready=True)
    ready = msgspec.structs.replace(observed, replicas=(old, new))
    assert plan(Desired(pools=(shared,)), ready, NOW) == [
        Publish(id=new.id, pool=A.name, url=new.url),
        Unpublish(id=old.id),
    ]


def test_a_hung_replica_is_taken_out_only_if_another_answers() -> None:
    two = pool("v1.0.0", 2)
    hung, well = seen("m-v1.0.0-int8-0", unready_since=NOW - UNREADY_S), seen("m-v1.0.0-int8-1", ready=True)
    published = {hung.id: hung.url, well.id: well.url}
    assert plan(Desired(pools=(two,)), Observed(replicas=(hung, well), published=published), NOW) == [
        Unpublish(id=hung.id)
    ]
    sick = seen("m-v1.0.0-int8-1", unready_since=NOW - UNREADY_S)
    assert plan(Desired(pools=(two,)), Observed(replicas=(hung, sick), published=published), NOW) == []


def test_a_revision_waits_for_every_replica_of_its_pool() -> None:
    two = pool("v1.0.0", 2)
    desired = Desired(pools=(two,), pending=(Pending(revision="r", pool=two.name, since=NOW),))
    half = Observed(replicas=(seen("m-v1.0.0-int8-0", ready=True), seen("m-v1.0.0-int8-1")))
    assert GoLive(revision="r") not in plan(desired, half, NOW)


def test_a_revision_whose_replica_dies_or_takes_too_long_is_given_up() -> None:
    desired = Desired(pools=(A,), pending=(Pending(revision="r", pool=A.name, since=NOW),))
    for replica in (seen("m-v1.0.0-int8-0", broken=True), seen("m-v1.0.0-int8-0", restarts=3)):
        [action] = plan(desired, Observed(replicas=(replica,)), NOW)
        assert isinstance(action, GiveUp)
        assert replica.id in action.detail
    slow = Observed(replicas=(seen("m-v1.0.0-int8-0"),))
    [late] = plan(desired, slow, NOW + START_S + 1)
    assert isinstance(late, GiveUp)


class World:
    """Does what the plan says; replicas are ready one round after their start."""

    def __init__(self) -> None:
        self.replicas: dict[str, SeenReplica] = {}
        self.published: dict[str, str] = {}
        self.released: dict[str, float] = {}
        self.now = NOW

    def step(self, desired: Desired) -> int:
        self.replicas = {i: seen(i, ready=True) for i in self.replicas}
        observed = Observed(
            replicas=tuple(self.replicas.values()), published=dict(self.published), released=dict(self.released)
        )
        actions = plan(desired, observed, self.now)
        for action in actions:
            match action:
                case Start(id=i):
                    self.replicas[i] = seen(i)
                case Publish(id=i, url=url):
                    self.published[i] = url
                case Unpublish(id=i):
                    assert self.published.pop(i)
                    self.released[i] = self.now
                case Stop(id=i):
                    assert i not in self.published
                    del self.replicas[i]
        self.now += 1.0
        return len(actions)


wish = st.tuples(st.integers(1, 3), st.booleans())
pools = st.dictionaries(st.sampled_from(["v1.0.0", "v1.1.0", "run7"]), wish, max_size=3).map(
    lambda wishes: tuple(pool(label, n, shared) for label, (n, shared) in wishes.items())
)


@given(st.lists(pools, min_size=1, max_size=5))
def test_doing_what_is_planned_leads_to_what_is_wanted_and_then_rests(wishes: list[tuple[WantedPool, ...]]) -> None:
    world = World()
    for wish in wishes:
        for _ in range(8):
            world.step(Desired(pools=wish))
        expected = {p.replica(i) for p in wish for i in range(p.replicas)}
        assert set(world.published) == set(world.replicas) == expected
        assert world.step(Desired(pools=wish)) == 0
