"""Gates through the API: what is missing is refused with the command that would supply it, evidence counts for what it is bound to alone."""

import json
from typing import Any

import httpx
import pytest

from penstock.control.versions.signatures import sealing_under
from penstock.core.errors import Damaged
from penstock.core.jobs import ExaminerJob
from penstock.examiner.desk import Desk
from penstock.registry.signing import public_of, read_envelope, sign_version
from tests.control.house import TOKEN, House, version_files

CARD = b"""---
license: apache-2.0
language: en
---
# Bot
## Intended use
Answers.
## Limitations
Many.
## Training data
Own.
## Evaluation
Good.
"""
ENGINE = "sha256:" + "e" * 64
ONE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # what no database does otherwise
SUITE = "\n".join(
    json.dumps(
        {
            "id": f"q{n}",
            "prompt": f"{n}?",
            "score": {"type": "exact", "answers": ["yes"]},
            "slices": {"topic": "ab"[n % 2]},
        }
    )
    for n in range(200)
)


@pytest.fixture(autouse=True)
def _engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine that is installed is the one that the tests' examiner has."""
    for module in ("penstock.control.gates.ask", "penstock.control.api.evaluations"):
        monkeypatch.setattr(f"{module}.engine_digest", lambda: ENGINE)


def desk(house: House, holder: str = "host") -> Desk:
    transport = httpx.ASGITransport(app=house.app)
    headers = {"authorization": f"Bearer {TOKEN}"}
    return Desk(httpx.AsyncClient(transport=transport, base_url="http://control", headers=headers), holder)


async def work_off(
    house: House, right: dict[str, int], *, holder: str = "host", engine: str = ENGINE
) -> list[ExaminerJob]:
    """Do all that waits: of each label so many items are right."""
    jobs = []
    asked = desk(house, holder)
    while (job := await asked.claim(engine)) is not None:
        jobs.append(job)
        names = [json.loads(line)["id"] for line in job.lines.splitlines()] or [
            f"prompt-{n + 1}" for n in range(len(job.prompts))
        ]
        items = [
            {"id": name, "number": n, "right": n < right.get(job.label, len(names)), "answer": f"{job.label} {n}"}
            for n, name in enumerate(names)
            if name not in job.answered
        ]
        assert await asked.tell(job.id, items)
        await asked.finish(job.id)
    return jobs


async def declare(house: House, environment: str = "production", **gates: Any) -> None:
    spec = {"kind": "Environment", "name": environment, "spec": {"gates": gates}}
    response = await house.admin.post("/api/v1/apply", content=json.dumps(spec))
    assert response.status_code == 200, response.text


async def suite(house: House) -> None:
    await house.post("/suites", {"name": "questions", "lines": SUITE})


async def push(house: House, label: str, **files: bytes) -> None:
    content = {**version_files(f"bot:{label}"), "README.md": CARD + label.encode()}
    await house.push("bot", label, content | {path.replace("__", "/"): data for path, data in files.items()})


async def promote(house: House, label: str, status: int = 201, environment: str = "production", **more: Any) -> Any:
    response = await house.admin.post(
        "/api/v1/promote?wait=20", json={"model": "bot", "label": label, "environment": environment, **more}
    )
    assert response.status_code == status, response.text
    return response.json()


async def gates(house: House, label: str, environment: str = "production") -> dict[str, Any]:
    found = await house.get(f"/gates?model=bot&label={label}&environment={environment}")
    return {one["gate"]: one for one in found["outcomes"]}


async def key_of(house: House, name: str, role: str) -> httpx.AsyncClient:
    """A client with a key of a person who has this role."""
    await house.post("/principals", {"name": name, "roles": [role]})
    told = await house.post("/keys", {"name": f"{name}-1", "principal": name})
    return house.client(told["key"])


async def test_a_worse_version_is_refused_with_the_figures_and_a_better_one_let_in(house: House) -> None:
    await suite(house)
    for label in ("v1.0.0", "v1.1.0", "v1.2.0"):
        await push(house, label)
    found = await house.get("/gates?model=bot&label=v1.0.0")
    assert (found["declared"], found["passed"]) == (False, True)  # without a policy nothing is asked
    await promote(house, "v1.0.0")
    await declare(house, scan=True, smoke={}, card=True, suites=[{"suite": "questions", "slices": ["topic"]}])
    refused = (await promote(house, "v1.1.0", 409))["error"]
    assert refused["code"] == "gates_not_passed"
    for gate in ("scan", "smoke", "suite questions"):
        assert f"{gate}: " in refused["message"]
    assert "penstock gates run bot:v1.1.0 --for production" in refused["message"]

    body = {"model": "bot", "label": "v1.1.0", "environment": "production"}
    asked = await house.post("/gates/run", body)
    assert len(asked["asked"]) == 4  # scan, smoke, the suite of both
    assert (await house.post("/gates/run", body))["asked"] == asked["asked"][1:]  # the scan is done, the rest under way
    assert "waits" in (await gates(house, "v1.1.0"))["smoke"]["words"]
    jobs = await work_off(house, {"v1.0.0": 180, "v1.1.0": 150})
    assert [(job.kind, job.label) for job in jobs] == [("smoke", "v1.1.0"), ("suite", "v1.1.0"), ("suite", "v1.0.0")]
    told = await gates(house, "v1.1.0")
    assert {name: one["state"] for name, one in told.items()} == {
        "scan": "passed",
        "smoke": "passed",
        "card": "passed",
        "suite questions": "failed",
    }
    assert "75.0 % right, bot:v1.0.0 90.0 %, on the same 200 items: -15.0 points" in told["suite questions"]["words"]
    refused = (await promote(house, "v1.1.0", 409))["error"]
    assert "-15.0 points" in refused["message"]

    await house.post("/gates/run", {**body, "label": "v1.2.0"})
    assert [job.label for job in await work_off(house, {"v1.2.0": 190})] == [
        "v1.2.0",
        "v1.2.0",
    ]  # v1.0.0 was measured already
    revision = await promote(house, "v1.2.0")
    kept = await house.get(f"/revisions/{revision['id']}/gates")
    assert [one["state"] for one in kept["outcomes"]] == ["passed"] * 4
    assert kept["overridden_by"] == ""
    assert (await house.post("/rollback?wait=20", {"model": "bot"}))["label"] == "v1.0.0"  # no gate in the way back


@ONE
async def test_evidence_of_another_engine_build_or_suite_does_not_count(house: House) -> None:
    await suite(house)
    await push(house, "v1.0.0")
    await declare(house, suites=[{"suite": "questions"}])
    body = {"model": "bot", "label": "v1.0.0", "environment": "production"}
    await house.post("/gates/run", body)
    await work_off(house, {}, engine="sha256:" + "0" * 64)
    assert (await gates(house, "v1.0.0"))["suite questions"]["state"] == "missing"
    await house.post("/gates/run", body)
    await work_off(house, {})
    assert (await gates(house, "v1.0.0"))["suite questions"]["state"] == "passed"
    await declare(house, suites=[{"suite": "questions", "seed": 2}])
    assert (await gates(house, "v1.0.0"))["suite questions"]["state"] == "missing"
    await declare(house, suites=[{"suite": "questions"}])
    await house.post("/suites", {"name": "questions", "lines": SUITE + "\n"})
    assert (await gates(house, "v1.0.0"))["suite questions"]["state"] == "missing"


@ONE
async def test_what_gates_ask_is_changed_by_those_alone_who_may_change_the_environment(house: House) -> None:
    await suite(house)
    await declare(house, suites=[{"suite": "questions"}])
    developer = await key_of(house, "dev", "developer")
    easy = json.dumps({"id": "q0", "prompt": "?", "score": {"type": "contains", "none_of": ["no"]}})
    refused = await developer.post("/api/v1/suites", json={"name": "questions", "lines": easy})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "suite_in_use")
    assert (await developer.post("/api/v1/suites", json={"name": "questions", "lines": SUITE})).status_code == 201
    assert (await developer.post("/api/v1/suites", json={"name": "mine", "lines": easy})).status_code == 201
    await house.post("/suites", {"name": "questions", "lines": easy})


@ONE
async def test_another_build_of_what_is_live_is_compared_with_it(house: House) -> None:
    await suite(house)
    await push(
        house, "v1.0.0", **{"openvino-int4__openvino_model.xml": b"<net/>", "openvino-int4__openvino_model.bin": b"4"}
    )
    await promote(house, "v1.0.0")
    await declare(house, suites=[{"suite": "questions"}])
    found = await house.get("/gates?model=bot&label=v1.0.0&precision=int4")
    assert found["outcomes"][0]["state"] == "missing"
    body = {"model": "bot", "label": "v1.0.0", "environment": "production", "precision": "int4"}
    assert len((await house.post("/gates/run", body))["asked"]) == 2
    await work_off(house, {})
    found = await house.get("/gates?model=bot&label=v1.0.0&precision=int4")
    assert "bot:v1.0.0 in int8 100.0 %" in found["outcomes"][0]["words"]
    assert (await promote(house, "v1.0.0", precision="int4"))["state"] == "live"


@ONE
async def test_gates_approvals_and_promotions_mean_the_same_build(house: House) -> None:
    await suite(house)
    small = {"openvino-int4__openvino_model.xml": b"<net/>", "openvino-int4__openvino_model.bin": b"4"}
    await push(house, "v1.0.0", **small)
    await promote(house, "v1.0.0", precision="int4")
    await push(house, "v1.1.0", **small)
    await declare(house, suites=[{"suite": "questions"}], approval={})
    bob = await key_of(house, "bob", "operator")
    body = {"model": "bot", "label": "v1.1.0", "environment": "production"}
    for precision in ({"precision": "int8"}, {}):
        await house.post("/gates/run", body | precision)
        assert {job.label for job in await work_off(house, {})} >= {"v1.1.0"}
        assert (await bob.post("/api/v1/approvals", json=body | precision)).status_code == 201
        assert (await house.get(f"/gates?model=bot&label=v1.1.0&precision={precision.get('precision', 'int4')}"))[
            "passed"
        ]
    assert (await promote(house, "v1.1.0"))["state"] == "live"


async def test_a_run_that_is_cut_off_is_gone_on_with_item_by_item(house: House) -> None:
    await suite(house)
    await push(house, "v1.0.0")
    one = await house.post("/evaluations", {"model": "bot", "label": "v1.0.0", "suite": "questions"})
    first = desk(house)
    job = await first.claim(ENGINE)
    assert job is not None
    items = [{"id": f"q{n}", "number": n, "right": True} for n in range(50)]
    assert await first.tell(job.id, items)
    assert await first.tell(job.id, items)  # told again, counted once
    assert (await house.get(f"/evaluations/{job.id}"))["done"] == 50
    assert await desk(house, "other").claim(ENGINE) is None  # the lease is the first one's
    assert [j.answered for j in await work_off(house, {})] == [tuple(sorted(f"q{n}" for n in range(50)))]
    told = await house.get(f"/evaluations/{one['id']}")
    assert (told["state"], told["done"]) == ("done", 200)
    assert told["result"]["figures"][0]["value"] == 1.0
    again = await house.post("/evaluations", {"model": "bot", "label": "v1.0.0", "suite": "questions"})
    assert again["id"] == one["id"]
    dropped = await house.post(f"/evaluations/{one['id']}/replay")
    assert await first.claim(ENGINE) is not None
    await house.post(f"/evaluations/{dropped['id']}/cancel", status=200)
    assert not await first.tell(dropped["id"], [])  # cancelled: nobody goes on with it
    await first.finish(dropped["id"])
    assert (await house.get(f"/evaluations/{dropped['id']}"))["state"] == "cancelled"
    replay = await house.post(f"/evaluations/{one['id']}/replay")
    await work_off(house, {"v1.0.0": 199})
    told = await house.get(f"/evaluations/{replay['id']}")
    assert told["result"]["replay"] == {
        "of": one["id"],
        "items": 200,
        "same": 149,
        "different": told["result"]["replay"]["different"],
    }


@ONE
async def test_an_approval_is_anothers_word_for_these_results(house: House) -> None:
    await suite(house)
    await push(house, "v1.0.0")
    await declare(house, suites=[{"suite": "questions"}], approval={})
    body = {"model": "bot", "label": "v1.0.0", "environment": "production"}
    await house.post("/gates/run", body)
    await work_off(house, {})
    own = await house.post("/approvals", body, 403)
    assert own["error"]["code"] == "own_version"
    bob, reader = await key_of(house, "bob", "operator"), await key_of(house, "eve", "developer")
    assert (await reader.post("/api/v1/approvals", json=body)).status_code == 403
    assert (await bob.post("/api/v1/approvals", json=body)).status_code == 201
    assert (await gates(house, "v1.0.0"))["approval"]["state"] == "passed"
    replay = await house.get("/evaluations?model=bot")
    await house.post(f"/evaluations/{replay[0]['id']}/replay")
    await work_off(house, {"v1.0.0": 100})
    told = (await gates(house, "v1.0.0"))["approval"]
    assert (told["state"], "other results" in told["words"]) == ("missing", True)
    assert (await bob.post("/api/v1/approvals", json=body)).status_code == 201
    assert (await promote(house, "v1.0.0"))["state"] == "live"
    withdrawn = await bob.post("/api/v1/approvals/withdraw", json=body)
    assert withdrawn.status_code == 200
    assert (await gates(house, "v1.0.0"))["approval"]["state"] == "missing"
    nobody_asks = await house.post("/approvals", {**body, "environment": "staging"}, 409)
    assert nobody_asks["error"]["code"] == "no_approval_needed"


@ONE
async def test_administrators_alone_override_and_it_stands_in_the_record(house: House) -> None:
    await push(house, "v1.0.0")
    await declare(house, smoke={}, signature={"signers": ["release"]})
    operator = await key_of(house, "bob", "operator")
    body = {"model": "bot", "label": "v1.0.0", "override": "I dare."}
    refused = await operator.post("/api/v1/promote", json=body)
    assert refused.status_code == 403
    assert "administrators" in refused.json()["error"]["message"]
    revision = await promote(house, "v1.0.0", override="The site is down.")
    kept = await house.get(f"/revisions/{revision['id']}/gates")
    assert (kept["overridden_by"], kept["reason"]) == ("admin", "The site is down.")
    audit = await house.get("/audit")
    [event] = [one for one in audit if one["action"] == "gates.override"]
    metrics = (await house.admin.get("/metrics")).text
    assert 'penstock_gates_judged_total{environment="production",result="overridden"} 1.0' in metrics
    assert 'penstock_evaluations{state="queued"} 0.0' in metrics
    assert [one["gate"] for one in event["detail"]["gates"]] == ["signature", "smoke"]


@ONE
async def test_a_judge_is_one_version_for_ever(house: House) -> None:
    for judge, status in (("judge@best", 400), ("no name", 400), ("judge:v1.0.0", 200)):
        gate = {"suites": [{"suite": "questions", "judge": judge}]}
        spec = {"kind": "Environment", "name": "staging", "spec": {"gates": gate}}
        response = await house.admin.post("/api/v1/apply", content=json.dumps(spec))
        assert response.status_code == status, response.text
        assert status == 200 or response.json()["error"]["param"].endswith("judge")


@ONE
async def test_no_experiment_brings_users_what_may_not_be_promoted(house: House) -> None:
    await push(house, "v1.0.0")
    await promote(house, "v1.0.0")
    await push(house, "v1.1.0")
    await declare(house, approval={})
    analyst = await key_of(house, "ann", "analyst")
    arms = [
        {"name": "a", "build": "bot@production", "weight": 0.01},
        {"name": "b", "build": "bot:v1.1.0", "weight": 0.99},
    ]
    spec = {
        "strategy": "ab",
        "route": "bot",
        "unit": "user",
        "hypothesis": "It is better.",
        "arms": arms,
        "primary": {"metric": "success", "minimum_effect": 0.05},
        "guardrails": [{"metric": "error_rate"}],
        "plan": {"units": 300},
    }

    async def start(name: str, strategy: dict[str, Any]) -> tuple[int, str]:
        document = {"kind": "Experiment", "name": name, "spec": spec | strategy}
        made = await analyst.post("/api/v1/apply", content=json.dumps(document))
        assert made.status_code == 200, made.text
        started = await analyst.post(f"/api/v1/experiments/{name}/start")
        return started.status_code, started.json().get("error", {}).get("code", "")

    assert await start("tempting", {}) == (409, "gates_not_passed")
    await house.post("/approvals", {"model": "bot", "label": "v1.1.0"}, 403)
    bob = await key_of(house, "bob", "operator")
    assert (await bob.post("/api/v1/approvals", json={"model": "bot", "label": "v1.1.0"})).status_code == 201
    await house.post("/blocks", {"model": "bot", "label": "v1.1.0", "reason": "It swore."})
    assert await start("tempting", {}) == (409, "version_blocked")
    await house.post("/blocks/clear", {"model": "bot", "label": "v1.1.0", "reason": "It does not any more."}, 200)
    assert await start("tempting", {}) == (200, "")


@ONE
async def test_a_scan_finds_a_lying_header_and_a_missing_licence(house: House) -> None:
    await declare(house, "staging", scan=True)
    lying = (10**9).to_bytes(8, "little") + b"{}"
    files = {"README.md": b"# no licence", "openvino-int8/openvino_model.xml": b"<net/>", "openvino-int8/x.bin": b"1"}
    for label, extra in (("v1.0.0", {}), ("v1.1.0", {"safetensors/model.safetensors": lying})):
        upload = await house.admin.post(
            "/api/v1/models/bot/uploads",
            json={"label": label, "files": {}, "idempotency_key": label},
        )
        assert upload.status_code == 400  # no file at all
        if not extra:
            await house.push("bot", label, files)
            body = {"model": "bot", "label": label, "environment": "staging"}
            await house.post("/gates/run", body)
            told = (await gates(house, label, "staging"))["scan"]
            assert (told["state"], "no licence" in told["words"]) == ("failed", True)


@ONE
async def test_what_was_not_scanned_has_passed_no_scan(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await push(house, "v1.0.0")

    async def none_yet(*_: object) -> None:
        await declare(house, "staging", scan=True)  # somebody does, between the look and the run

    monkeypatch.setattr("penstock.control.api.gates.gates_of", none_yet)
    body = {"model": "bot", "label": "v1.0.0", "environment": "staging"}
    assert (await house.post("/gates/run", body))["asked"] == []
    assert (await gates(house, "v1.0.0", "staging"))["scan"]["state"] == "missing"
    monkeypatch.undo()


async def test_signatures_are_made_checked_and_revoked(house: House) -> None:
    await push(house, "v1.0.0")
    await declare(house, signature={"signers": ["release"]})
    signer = await house.post("/signers", {"name": "release"})
    assert signer["signs_here"]
    assert "sealed" not in signer
    assert (await house.post("/signers", {"name": "release"}, 409))["error"]["code"] == "signer_taken"
    assert "penstock models sign" in (await gates(house, "v1.0.0"))["signature"]["command"]
    [made] = await house.post("/models/bot/versions/v1.0.0/signatures", {"signer": "release"})
    digest = (await house.get("/models/bot/versions/v1.0.0"))["digest"]
    assert read_envelope(made["envelope"], signer["public"]).digest == digest
    assert (await promote(house, "v1.0.0"))["state"] == "live"
    sealing, house.control.sealing = house.control.sealing, sealing_under(bytes(32))
    refused = await house.post("/models/bot/versions/v1.0.0/signatures", {"signer": "release"}, 503)
    assert "sealed under other keys" in refused["error"]["message"]
    house.control.sealing = sealing
    await house.post("/signers/release/revoke", {"reason": "Its laptop was stolen."}, 200)
    assert (await gates(house, "v1.0.0"))["signature"]["state"] == "missing"
    assert await house.get("/models/bot/versions/v1.0.0/signatures") == []
    refused = await house.post("/models/bot/versions/v1.0.0/signatures", {"signer": "release"}, 409)
    assert refused["error"]["code"] == "signer_cannot_sign"
    operator = await key_of(house, "bob", "operator")
    assert (await operator.post("/api/v1/signers", json={"name": "mine"})).status_code == 403


@ONE
async def test_a_signer_signs_for_its_owner_and_for_roles_that_are_named(house: House) -> None:
    await push(house, "v1.0.0")
    ann, bob = await key_of(house, "ann", "operator"), await key_of(house, "bob", "operator")

    async def sign(who: httpx.AsyncClient, signer: str) -> tuple[int, str]:
        answer = await who.post("/api/v1/models/bot/versions/v1.0.0/signatures", json={"signer": signer})
        error = answer.json()["error"] if answer.status_code != 201 else {}
        return answer.status_code, error.get("message", "")

    mine = await house.post("/signers", {"name": "mine"})
    assert (mine["owner"], mine["roles"]) == ("admin", [])
    await house.post("/signers", {"name": "anns", "owner": "ann"})
    await house.post("/signers", {"name": "everybodys", "roles": ["operator"]})
    assert (await sign(ann, "anns"))[0] == 201
    assert (await sign(bob, "everybodys"))[0] == 201
    status, words = await sign(bob, "anns")
    assert (status, words) == (403, "bob may not sign as anns: it is for ann.")
    assert (await sign(house.admin, "anns"))[0] == 403, "who manages keys does not speak for others"
    assert (await sign(bob, "mine"))[0] == 403
    developer = await key_of(house, "dora", "developer")
    body = {"test": "model-1", "text": "Yes.", "signer": "anns"}
    answer = await developer.post("/api/v1/models/bot/versions/v1.0.0/readiness", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_your_signer")
    changed = await house.post("/signers/anns/change", {"owner": "bob", "roles": ["admin"]}, 200)
    assert (changed["owner"], changed["roles"]) == ("bob", ["admin"])
    assert ((await sign(ann, "anns"))[0], (await sign(bob, "anns"))[0]) == (403, 201)
    assert len(await house.get("/models/bot/versions/v1.0.0/signatures")) == 2
    await house.post("/signers/anns/change", {}, 400)
    await house.post("/signers", {"name": "x", "owner": "nobody"}, 404)
    shared = house.client((await house.post("/keys", {"name": "shared", "roles": ["admin"]}))["key"])
    nobodys = await shared.post("/api/v1/signers", json={"name": "x"})
    assert (nobodys.status_code, nobodys.json()["error"]["param"]) == (400, "owner")


@ONE
async def test_a_scan_counts_for_the_licence_that_it_read(house: House) -> None:
    await push(house, "v1.0.0")
    await declare(house, "staging", scan=True)
    body = {"model": "bot", "label": "v1.0.0", "environment": "staging"}

    async def state() -> str:
        return str((await gates(house, "v1.0.0", "staging"))["scan"]["state"])

    async def edit(card: bytes) -> None:
        answer = await house.admin.put(
            "/api/v1/models/bot/versions/v1.0.0/card", json={"text": card.decode(), "reason": "a look"}
        )
        assert answer.status_code == 200, answer.text

    await house.post("/gates/run", body)
    assert await state() == "passed"
    await edit(CARD.replace(b"Answers.", b"Answers in English."))
    assert await state() == "passed", "what the scan did not read changes nothing"
    await edit(CARD.replace(b"license: apache-2.0", b"license: cc-by-nc-4.0"))
    assert await state() == "missing"
    await house.post("/gates/run", body)
    assert await state() == "passed"
    await edit(CARD.replace(b"license: apache-2.0\n", b""))
    assert await state() == "missing"
    await house.post("/gates/run", body)
    assert await state() == "failed"
    await edit(CARD)
    assert await state() == "passed", "what was found under this licence stands"


def test_an_envelope_is_read_by_its_own_key_and_bytes_alone() -> None:
    seed, digest = bytes(range(32)), "sha256:" + "a" * 64
    public = public_of(seed)
    envelope = sign_version(seed, digest=digest, name="bot:v1", at=5.0)
    told = read_envelope(envelope, public)
    assert (told.digest, told.name, told.at) == (digest, "bot:v1", 5.0)
    other = public_of(bytes(32))
    bad = json.loads(envelope)
    bad["payload"] = bad["payload"][:-4] + "AAAA"
    for text, key in (
        (envelope, other),
        (json.dumps(bad), public),
        (json.dumps({**json.loads(envelope), "payloadType": "x"}), public),
        ("[" * 50_000, public),
        ("{}", public),
        (json.dumps({**json.loads(envelope), "signatures": []}), public),
    ):
        with pytest.raises(Damaged):
            read_envelope(text, key)
