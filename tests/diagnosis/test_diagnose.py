"""The rules alone: what follows from what, and in which order."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.exchange import Exchange, Usage
from penstock.core.reports import Fault, Report
from penstock.diagnosis.diagnose import diagnose, healthy
from penstock.diagnosis.seen import (
    AlertSeen,
    ConditionSeen,
    Disk,
    Group,
    Journal,
    Machine,
    Plane,
    Program,
    Reader,
    ReplicaSeen,
    Seen,
    Traffic,
)
from penstock.diagnosis.traffic import traffic_of

NOW = 1_800_000_000.0
GB = 1 << 30
ENGINE = Program(name="engine-bot-0", kind="engine", pid=40, url="http://127.0.0.1:9000", status=200)
CONTROL = Program(name="control", kind="control", pid=20, url="http://127.0.0.1:8081", status=200)
WORKER = Program(name="gateway-0", kind="gateway", pid=30)
MACHINE = Machine(
    data="/data",
    metrics=True,
    programs=(CONTROL, WORKER, ENGINE),
    disks=(Disk(path="/data", free=50 * GB, total=100 * GB),),
    readers=(Reader(name="control"), Reader(name="elasticsearch")),
    journals=(Journal(worker="gateway-0", bytes=1000, bound=8 * GB),),
    replicas=(ReplicaSeen(pool="bot", id="bot-0", url="http://127.0.0.1:9000", ours=True, workers=1),),
)
PLANE = Plane(generation=7, workers=(Report(worker="gateway-0", generation=7, at=NOW - 1),))
WELL = Seen(at=NOW, machine=MACHINE, plane=PLANE)


def machine(**changes: object) -> Seen:
    return msgspec.structs.replace(WELL, machine=msgspec.structs.replace(MACHINE, **changes))


def plane(**changes: object) -> Seen:
    return msgspec.structs.replace(WELL, plane=msgspec.structs.replace(PLANE, **changes))


def traffic(*groups: Group) -> Seen:
    return machine(traffic=Traffic(groups=groups))


def programs(**changes: object) -> Seen:
    """The engine's process is otherwise."""
    return machine(programs=(CONTROL, WORKER, msgspec.structs.replace(ENGINE, **changes)))


def first(seen: Seen) -> tuple[str, str]:
    cause = diagnose(seen)[0]
    return cause.name, cause.subject


def test_nothing_is_wrong_with_what_is_well() -> None:
    assert diagnose(WELL) == []
    assert healthy([])


OK = Group(tenant="a", pool="bot", outcome="ok", count=50, tokens=900, cost_nanousd=7)
CASES: dict[str, tuple[Seen, tuple[str, str]]] = {
    "no folder": (Seen(at=NOW, machine=Machine(data="/x", missing=True)), ("data_folder_missing", "/x")),
    "supervisor": (
        machine(supervisor="it does not answer", ledgerless=("gateway-0",)),
        ("supervisor_down", "supervisor"),
    ),
    "halted": (programs(halted=41, status=0), ("process_halted", "engine-bot-0")),
    "silent": (programs(status=0), ("process_silent", "engine-bot-0")),
    "not ready": (programs(status=503, complaint="loading"), ("process_not_ready", "engine-bot-0")),
    "loops": (programs(streak=4, state="restarting", pid=0), ("process_restarting", "engine-bot-0")),
    "gone": (programs(pid=0, state="stopped"), ("process_restarting", "engine-bot-0")),
    "shipper": (machine(shipper="nothing"), ("shipper_silent", "ship")),
    "disk": (machine(disks=(Disk(path="/data", free=4096, total=100 * GB),)), ("disk_full", "/data")),
    "small disk": (machine(disks=(Disk(path="/j", free=0, total=6 << 20),)), ("disk_full", "/j")),
    "low disk": (machine(disks=(Disk(path="/data", free=GB // 2, total=100 * GB),)), ("disk_low", "/data")),
    "bound": (
        machine(journals=(Journal(worker="gateway-0", bytes=995, bound=1000, lost=3, losing=1),)),
        ("journal_bound", "gateway-0"),
    ),
    "losing": (
        machine(journals=(Journal(worker="gateway-0", bytes=10, bound=1000, lost=3, losing=1),)),
        ("journal_losing", "gateway-0"),
    ),
    "sink": (
        machine(readers=(Reader(name="elasticsearch", lag_bytes=900, problem="refused"),)),
        ("sink_failing", "elasticsearch"),
    ),
    "lag": (machine(readers=(Reader(name="otlp", lag_bytes=GB),)), ("sink_lagging", "otlp")),
    "letters": (machine(readers=(Reader(name="otlp", dead_letters=4),)), ("dead_letters", "otlp")),
    "address": (
        machine(replicas=(ReplicaSeen(pool="p", id="p-0", url="http://x", dialled="refused"),)),
        ("pool_unreachable", "p"),
    ),
    "one of two": (
        machine(
            replicas=(
                ReplicaSeen(pool="p", id="p-0", url="http://x", dialled="refused"),
                ReplicaSeen(pool="p", id="p-1", url="http://y"),
            )
        ),
        ("replica_unreachable", "p p-0"),
    ),
    "slow": (
        machine(replicas=(ReplicaSeen(pool="p", id="p-0", url="http://x", out=1, workers=2, ejections={"slow": 2}),)),
        ("replica_slow", "p p-0"),
    ),
    "failing": (
        machine(replicas=(ReplicaSeen(pool="p", id="p-0", url="http://x", out=1, ejections={"failing": 2}),)),
        ("replica_failing", "p p-0"),
    ),
    "ledger": (machine(ledgerless=("gateway-0",), shared_ledger=True), ("ledger_down", "ledger")),
    "certificate": (machine(certificate=NOW - 60), ("certificate_expired", "gateway certificate")),
    "ending": (machine(certificate=NOW + 86400), ("certificate_ending", "gateway certificate")),
    "secret": (machine(readable_secrets=("/data/admin.key",)), ("secret_readable", "/data/admin.key")),
    "limits": (
        traffic(OK, Group(tenant="b", error="rate_limit_exceeded", outcome="refused", count=9)),
        ("limits_exhausted", "b"),
    ),
    "keys": (traffic(Group(error="invalid_api_key", outcome="refused", count=9), OK), ("keys_refused", "keys")),
    "crowd": (
        traffic(OK, Group(tenant="a", pool="bot", error="queue_full", outcome="refused", count=30)),
        ("pool_overloaded", "bot"),
    ),
    "errors": (
        traffic(OK, Group(tenant="a", pool="bot", error="upstream_failed", outcome="error", count=5)),
        ("pool_errors", "bot"),
    ),
    "price": (traffic(Group(pool="free", outcome="ok", count=5, tokens=90)), ("price_missing", "free")),
    "stale": (
        plane(workers=(Report(worker="gateway-0", generation=6, at=NOW - 40),)),
        ("worker_stale", "gateway-0"),
    ),
    "no worker": (plane(workers=()), ("worker_stale", "gateways")),
    "refused": (
        plane(workers=(Report(worker="gateway-0", host="b", generation=6, at=NOW, refused="no Snapshot"),)),
        ("snapshot_refused", "gateway-0 on b"),
    ),
    "fault": (
        plane(
            workers=(
                Report(
                    worker="gateway-0",
                    generation=7,
                    at=NOW,
                    faults=(Fault(kind="route", name="chat", why="no pool"),),
                    fault_count=3,
                ),
            )
        ),
        ("snapshot_fault", "gateway-0"),
    ),
    "condition": (
        plane(conditions=(ConditionSeen(subject="bot-0", message="no memory"),)),
        ("condition_failing", "bot-0"),
    ),
    "alert": (plane(alerts=(AlertSeen(name="PenstockSinkLag"),)), ("alert_firing", "PenstockSinkLag")),
    "unheard": (msgspec.structs.replace(WELL, plane=None, unasked="no answer"), ("control_unheard", "control")),
}


@pytest.mark.parametrize("title", CASES)
def test_each_fault_alone_is_named_first(title: str) -> None:
    seen, expected = CASES[title]
    assert first(seen) == expected
    for cause in diagnose(seen):
        assert cause.says.endswith(".")
        assert cause.command
        assert 0.0 < cause.likelihood <= 1.0


def test_what_follows_from_something_else_is_named_after_it() -> None:
    engine_away = (ReplicaSeen(pool="bot", id="bot-0", url=ENGINE.url, ours=True, out=1, dialled="no answer"),)
    failing = Traffic(groups=(Group(pool="bot", outcome="error", error="upstream_timeout", count=90),))
    stopped = msgspec.structs.replace(ENGINE, halted=41, status=0)
    seen = machine(programs=(CONTROL, WORKER, stopped), replicas=engine_away, traffic=failing)
    causes = diagnose(seen)
    assert [one.name for one in causes] == ["process_halted", "pool_unreachable", "process_silent", "pool_errors"]
    assert [bool(one.follows) for one in causes] == [False, True, True, True]
    silent = msgspec.structs.replace(CONTROL, halted=20, status=0)
    dead = msgspec.structs.replace(
        machine(programs=(silent,), readers=(Reader(name="control", problem="no answer"),)), plane=None, unasked="no"
    )
    assert first(dead) == ("process_halted", "control")
    assert {one.follows for one in diagnose(dead)[1:]} == {"process_halted control"}


def test_the_sink_that_holds_the_journal_comes_before_the_journal_s_bound() -> None:
    full = (Journal(worker="gateway-0", bytes=1000, bound=1000, lost=8, losing=8),)
    away = Reader(name="elasticsearch", lag_bytes=990, problem="refused")
    assert first(machine(journals=full, readers=(away,))) == ("sink_failing", "elasticsearch")
    quick = Reader(name="elasticsearch", lag_bytes=9, problem="refused")
    assert first(machine(journals=full, readers=(quick,))) == ("journal_bound", "gateway-0")


def test_few_refusals_and_loss_long_ago_are_no_fault() -> None:
    few = traffic(OK, Group(tenant="a", error="rate_limit_exceeded", outcome="refused", count=2))
    rare = traffic(OK, Group(tenant="a", error="rate_limit_exceeded", outcome="refused", count=4))
    assert diagnose(few) == diagnose(rare) == []
    assert diagnose(programs(streak=4, since=NOW - 60)) == [], "it has lived since"
    assert first(programs(streak=4, since=NOW - 2)) == ("process_restarting", "engine-bot-0")
    once = diagnose(machine(journals=(Journal(worker="gateway-0", bytes=10, bound=1000, lost=3),)))
    assert healthy(once)
    assert once


@given(st.lists(st.sampled_from(sorted(CASES)), min_size=1, max_size=6))
def test_the_order_is_of_likelihood_and_no_cause_stands_before_what_explains_it(titles: list[str]) -> None:
    changed: dict[str, object] = {}
    plane_changed: dict[str, object] = {}
    for title in titles:
        seen = CASES[title][0]
        if seen.machine is not None:
            changed |= {n: v for n, v in msgspec.structs.asdict(seen.machine).items() if v != getattr(MACHINE, n)}
        if seen.plane is not None:
            plane_changed |= {n: v for n, v in msgspec.structs.asdict(seen.plane).items() if v != getattr(PLANE, n)}
    seen = Seen(
        at=NOW,
        machine=msgspec.structs.replace(MACHINE, **changed),
        plane=msgspec.structs.replace(PLANE, **plane_changed),
    )
    causes = diagnose(seen)
    assert diagnose(seen) == causes
    likelihoods = [one.likelihood for one in causes]
    assert likelihoods == sorted(likelihoods, reverse=True)
    places = {f"{one.name} {one.subject}": place for place, one in enumerate(causes)}
    for one in causes:
        if one.follows:
            above = causes[places[one.follows]]
            assert above.follows or above.likelihood > one.likelihood


def test_requests_of_a_window_are_counted_once() -> None:
    told = [
        Exchange(id=str(n), at=NOW - n, tenant="a", pool="p", usage=Usage(1, 2), cost_nanousd=5, outcome="ok")
        for n in range(10)
    ]
    (group,) = traffic_of(told, NOW, 4.5).groups
    assert (group.count, group.tokens, group.cost_nanousd) == (5, 15, 25)
