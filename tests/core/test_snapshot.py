import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.checksum import advanced, entries_checksum, result_checksum
from penstock.core.snapshot import (
    KeyEntry,
    Policy,
    Pool,
    Replica,
    Route,
    Snapshot,
    SnapshotDelta,
    Target,
    TenantEntry,
    difference,
    patched,
)

names = st.sampled_from(["a", "b", "c", "d"])
flags = st.booleans()


@st.composite
def snapshots(draw: st.DrawFn, generation: int) -> Snapshot:
    def some(make: object) -> tuple:
        return tuple(make(name, draw(flags)) for name in draw(st.lists(names, unique=True)))  # type: ignore[operator]

    return Snapshot(
        generation=generation,
        compiled_at=float(generation),
        keys=some(lambda n, f: KeyEntry(id=n, hash=n * 3, tenant="t", name="x" if f else "")),
        tenants=some(lambda n, f: TenantEntry(name=n, weight=2.0 if f else 1.0)),
        routes=some(lambda n, f: Route(name=n, to=(Target(pool=n),), created=int(f))),
        pools=some(lambda n, f: Pool(name=n, replicas=(Replica(id=n, url="http://h:1"),) if f else ())),
        policies=some(lambda n, f: Policy(name=n, capture="full" if f else "none")),
    )


def as_sets(snapshot: Snapshot) -> tuple:
    tables = (snapshot.keys, snapshot.tenants, snapshot.routes, snapshot.pools, snapshot.policies)
    return snapshot.generation, snapshot.compiled_at, [sorted(map(repr, table)) for table in tables]


@given(snapshots(1), snapshots(2))
def test_a_delta_turns_the_old_into_the_new(old: Snapshot, new: Snapshot) -> None:
    assert as_sets(patched(old, difference(old, new))) == as_sets(new)


@given(snapshots(1))
def test_an_unchanged_snapshot_makes_an_empty_delta(snapshot: Snapshot) -> None:
    delta = difference(snapshot, snapshot)
    assert not any((delta.keys, delta.tenants, delta.routes, delta.pools, delta.policies, delta.gone))


def test_a_delta_from_another_generation_is_refused() -> None:
    delta = difference(Snapshot(generation=3), Snapshot(generation=4))
    with pytest.raises(ValueError, match="generation 3"):
        patched(Snapshot(generation=2), delta)


@given(snapshots(7))
def test_it_survives_the_disk(snapshot: Snapshot) -> None:
    assert msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot) == snapshot


@given(snapshots(1), snapshots(2), snapshots(3))
def test_the_checksum_carried_on_over_deltas_is_that_of_the_whole(
    one: Snapshot, two: Snapshot, three: Snapshot
) -> None:
    first, second = difference(one, two), difference(two, three)
    carried = advanced(advanced(entries_checksum(one), one, first), patched(one, first), second)
    assert carried == entries_checksum(three)
    assert entries_checksum(patched(patched(one, first), second)) == carried


@given(snapshots(1), snapshots(2))
def test_another_result_has_another_checksum(old: Snapshot, new: Snapshot) -> None:
    same = as_sets(old)[2] == as_sets(new)[2]
    assert (entries_checksum(old) == entries_checksum(new)) == same
    told = result_checksum(entries_checksum(new), 2, "production")
    assert told != result_checksum(entries_checksum(new), 3, "production")
    assert told != result_checksum(entries_checksum(new), 2, "staging")


def test_a_delta_does_not_lead_back() -> None:
    with pytest.raises(ValueError, match="cannot lead to generation 2"):
        patched(Snapshot(generation=2), SnapshotDelta(base=2, generation=2))
