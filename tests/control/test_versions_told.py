"""What is told of versions: aliases, states, metadata, lineage, data sets, cards."""

import json
from typing import Any

from penstock.core.digests import sha256_digest
from penstock.registry.card import parse_card
from tests.control.house import House, eventually, version_files

DATA = "sha256:" + "1" * 64
RAW = "sha256:" + "2" * 64
NAMED: dict[str, Any] = {
    "digest": DATA,
    "source": "Made by a generator.",
    "licence": "apache-2.0",
    "consent": {"basis": "synthetic"},
    "custodians": [{"name": "The shop", "since": "2026-01-01"}],
}


async def push(
    house: House,
    label: str,
    metadata: dict[str, Any] | None = None,
    status: int = 200,
    key: str = "",
    more: dict[str, bytes] | None = None,
) -> Any:
    """Push with metadata, and `more` files than a version has."""
    files = version_files(f"m:{label}") | (more or {})
    body = {
        "label": label,
        "files": {p: {"digest": sha256_digest(b), "size": len(b)} for p, b in files.items()},
        "metadata": metadata or {},
        "idempotency_key": key or label,
    }
    begun = await house.admin.post("/api/v1/models/m/uploads", json=body)
    if begun.status_code != 201:
        assert begun.status_code == status, begun.text
        return begun.json()
    for data in files.values():
        if sha256_digest(data) in begun.json()["missing"]:
            await house.admin.put(f"/api/v1/blobs/{sha256_digest(data)}", content=data)
    return await house.post(f"/uploads/{begun.json()['id']}/commit", status=status)


async def put(house: House, path: str, body: Any, status: int = 200) -> Any:
    reply = await house.admin.put(f"/api/v1{path}", json=body)
    assert reply.status_code == status, reply.text
    return reply.json()


async def test_an_alias_moves_by_compare_and_swap_and_keeps_its_history(house: House) -> None:
    one, two = await push(house, "v1.0.0"), await push(house, "v1.1.0")
    alias = await put(house, "/models/m/aliases/champion", {"label": "v1.0.0", "generation": 0})
    assert (alias["digest"], alias["generation"]) == (one["digest"], 1)
    assert (await house.get("/resolve?ref=m@champion"))["digest"] == one["digest"]
    stale = await put(house, "/models/m/aliases/champion", {"label": "v1.1.0", "generation": 7}, status=409)
    assert stale["error"]["code"] == "generation_conflict"
    await put(house, "/models/m/aliases/champion", {"label": two["digest"], "generation": 1, "reason": "better"})
    found = await house.get("/models/m/versions/@champion")
    assert (found["label"], found["aliases"]) == ("v1.1.0", ["champion"])
    assert (await house.admin.delete("/api/v1/models/m/aliases/champion")).status_code == 204
    await house.get("/resolve?ref=m@champion", status=404)
    moves = await house.get("/models/m/aliases/champion/history")
    assert [(move["label"], move["previous"]) for move in moves] == [
        (None, "v1.1.0"),
        ("v1.1.0", "v1.0.0"),
        ("v1.0.0", None),
    ]


async def test_aliases_and_environments_share_one_space_of_names(small_house: House) -> None:
    await push(small_house, "v1.0.0")
    for taken in ("production", "latest"):
        refused = await put(small_house, f"/models/m/aliases/{taken}", {"label": "v1.0.0"}, status=409)
        assert refused["error"]["code"] == "alias_reserved"
    await put(small_house, "/models/m/aliases/canary-eu", {"label": "v1.0.0"})
    refused = await small_house.post("/environments", {"name": "canary-eu", "spec": {}}, status=409)
    assert refused["error"]["code"] == "alias_reserved"


async def test_whoever_may_not_deploy_moves_no_alias_that_a_pool_follows(small_house: House) -> None:
    house = small_house
    await push(house, "v1.0.0")
    await push(house, "v1.1.0")
    await put(house, "/models/m/aliases/tried", {"label": "v1.0.0"})
    developer = house.client((await house.post("/keys", {"name": "dev", "roles": ["developer"]}))["key"])
    path = "/api/v1/models/m/aliases/tried"
    assert (await developer.put(path, json={"label": "v1.1.0"})).status_code == 200
    await house.post("/pools", {"name": "p", "spec": {"build": "m@tried"}})
    for refused in (await developer.put(path, json={"label": "v1.0.0"}), await developer.delete(path)):
        assert (refused.status_code, "deployments:write" in refused.text) == (403, True)
    await put(house, "/models/m/aliases/tried", {"label": "v1.0.0"})


async def test_a_pool_follows_an_alias_once_the_new_replicas_are_ready(small_house: House) -> None:
    await push(small_house, "v1.0.0")
    await push(small_house, "v1.1.0")
    await put(small_house, "/models/m/aliases/tried", {"label": "v1.0.0"})
    await small_house.post("/pools", {"name": "p", "spec": {"build": "m@tried"}})
    await small_house.post("/routes", {"name": "r", "spec": {"to": [{"pool": "p"}]}})

    def serves() -> str:
        snapshot = small_house.publisher.current
        route = next((one for one in snapshot.routes if one.name == "r"), None) if snapshot is not None else None
        return route.to[0].pool if route is not None and route.to else ""

    await eventually(lambda: serves() == "m-v1.0.0-int8")
    small_house.runtime.held = {"m-v1.1.0-int8-0"}
    await put(small_house, "/models/m/aliases/tried", {"label": "v1.1.0"})
    await eventually(lambda: len(small_house.runtime.specs) == 2)
    assert serves() == "m-v1.0.0-int8", "nothing of the new one is ready yet"
    small_house.runtime.held = set()
    await eventually(lambda: serves() == "m-v1.1.0-int8")


async def test_a_deleted_version_keeps_its_label_for_ever(house: House) -> None:
    await push(house, "v1.0.0")
    gone = await push(house, "v1.1.0")
    await put(house, "/models/m/aliases/tried", {"label": "v1.1.0"})
    used = await house.post("/models/m/versions/v1.1.0/state", {"state": "deleted"}, status=409)
    assert used["error"]["code"] == "version_used"
    assert "m@tried" in used["error"]["message"]
    await house.admin.delete("/api/v1/models/m/aliases/tried")
    await house.post("/models/m/versions/v1.1.0/state", {"state": "deleted", "reason": "a mistake"}, status=200)
    again = await push(house, "v1.1.0", status=409, key="another")
    assert again["error"]["code"] == "label_taken"
    assert "deleted" in again["error"]["message"]
    assert (await house.get(f"/resolve?ref=m@{gone['digest']}"))["state"] == "deleted"
    assert (await house.get("/resolve?ref=m@latest"))["label"] == "v1.0.0"
    assert (await house.get("/models/m/next"))["next"] == "v1.2.0"
    refused = await house.post("/promote", {"model": "m", "label": "v1.1.0", "environment": "dev"}, status=409)
    assert "deleted" in refused["error"]["message"]
    for to in ("committed", "archived"):
        await house.post("/models/m/versions/v1.1.0/state", {"state": to}, status=409)


async def test_one_day_is_one_label_and_the_next_one_is_told(small_house: House) -> None:
    await push(small_house, "2023-09-15")
    refused = await push(small_house, "20230915", status=409)
    assert "2023-09-15" in refused["error"]["message"]
    await push(small_house, "experiment4-run7")
    assert (await small_house.get("/models/m/next"))["next"] == "experiment4-run8"
    assert (await small_house.get("/models/m/next?experiment=5"))["next"] == "experiment5-run1"
    assert (await small_house.get("/models/m/next?scheme=semantic&pre=rc"))["next"] == "v1.0.0-rc.1"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"licenze": "mit"}, "metadata.licenze"),
    ({"training": {"data": [{"dataset": "nobody"}]}}, "metadata.training.data.0.dataset"),
    ({"lineage": [{"relation": "fine_tuned_from", "version": "m:v9.9.9"}]}, "metadata.lineage.0.version"),
    ({"lineage": [{"relation": "child_of", "version": "m:v1.0.0"}]}, "metadata.lineage.0.relation"),
    ({"metrics": {"right": {"value": "high"}}}, "metadata.metrics.right"),
    ({"price": {"prompt": -1}}, "metadata.price.prompt"),
]


async def test_metadata_that_is_wrong_is_refused_by_its_path(small_house: House) -> None:
    for number, (metadata, path) in enumerate(WRONG):
        refused = await push(small_house, "v1.0.0", metadata, status=400, key=f"k{number}")
        assert refused["error"]["param"].startswith(path)
    assert (await small_house.get("/models")) == []


async def test_lineage_is_resolved_at_the_commit_and_leads_to_the_data(house: House) -> None:
    made = {"what": "Cleaned.", "inputs": [RAW], "by": "me", "at": "2026-02-01"}
    await house.post("/datasets", {"name": "talks", "spec": NAMED | {"transformations": [made]}})
    base = await push(house, "v1.0.0", {"training": {"data": [{"dataset": "talks"}]}})
    lineage = [
        {"relation": "fine_tuned_from", "version": "m@latest"},
        {"relation": "evaluated_on", "dataset": DATA},
        {"relation": "distilled_from", "external": "hf:org/name@abc"},
    ]
    await push(house, "v1.1.0", {"lineage": lineage})
    graph = await house.get("/models/m/versions/v1.1.0/lineage")
    assert {(n["id"], n["depth"]) for n in graph["nodes"]} == {
        ("m:v1.1.0", 0),
        ("m:v1.0.0", -1),
        ("talks", -1),
        ("hf:org/name@abc", -1),
    }
    assert {"source": "m:v1.1.0", "relation": "fine_tuned_from", "target_digest": base["digest"]}.items() <= next(
        edge for edge in graph["edges"] if edge["target"] == "m:v1.0.0"
    ).items()
    down = await house.get("/models/m/versions/v1.0.0/lineage")
    assert ("m:v1.1.0", 1) in {(n["id"], n["depth"]) for n in down["nodes"]}
    shown = await house.get("/datasets/talks")
    assert shown["versions"] == ["m:v1.0.0", "m:v1.1.0"]
    assert [link["name"] for link in shown["custody"]["links"]] == ["talks"]
    assert shown["custody"]["gaps"] == ["222222222222, an input of talks, is not registered."]
    refused = await house.admin.delete("/api/v1/datasets/talks")
    assert refused.json()["error"]["code"] == "dataset_used"


async def test_data_sets_are_applied_and_their_revisions_stay(small_house: House) -> None:
    async def apply(spec: dict[str, Any], **query: str) -> Any:
        body = {"documents": [{"kind": "DataSet", "name": "talks", "spec": spec}]}
        reply = await small_house.admin.post("/api/v1/apply", json=body, params=query)
        return reply.json()

    assert (await apply(NAMED))["steps"][0]["action"] == "create"
    assert (await apply(NAMED))["steps"][0]["action"] == "keep"
    assert (await apply(NAMED | {"rows": 10}))["steps"][0]["changes"] == {"spec.rows": [None, 10]}
    wrong = await apply(NAMED | {"custodians": [{"name": "x", "since": "2026-02-01", "until": "2026-01-01"}]})
    assert wrong["error"]["param"] == "spec.custodians.0"
    assert [one["number"] for one in (await small_house.get("/datasets/talks"))["revisions"]] == [2, 1]
    assert (await small_house.get(f"/datasets/{DATA}"))["number"] == 2


async def test_a_card_has_revisions_a_template_and_a_list_of_what_it_lacks(small_house: House) -> None:
    house = small_house
    await house.post("/datasets", {"name": "talks", "spec": NAMED})
    metadata = {
        "licence": "apache-2.0",
        "languages": ["en"],
        "task": "text-generation",
        "training": {"description": "Made-up talks.", "data": [{"dataset": "talks"}]},
        "metrics": {"right": {"value": 0.9, "lower": 0.8, "upper": 0.95, "count": 100, "dataset": "questions"}},
    }
    version = await push(house, "v1.0.0", metadata)
    where = "/models/m/versions/v1.0.0/card"
    told = await house.get(f"{where}/check")
    assert not told["complete"]
    assert {one["what"] for one in told["lacking"] if one["wanted_for"] == "any"} >= {"the section 'limitations'"}
    assert all("penstock models card m:v1.0.0" in one["command"] for one in told["lacking"])
    template = (await house.admin.get(f"/api/v1{where}/template")).text
    front = parse_card(template).metadata
    assert (front["license"], front["datasets"]) == ("apache-2.0", ["talks"])
    assert front["model-index"][0]["results"][0]["metrics"] == [{"type": "right", "name": "right", "value": 0.9}]
    filled = template.replace("<!-- ", "").replace(" -->", "")
    edited = await put(house, where, {"text": filled, "reason": "filled in", "revision": 1})
    assert (edited["revision"], edited["lacking"], edited["digest"]) == (2, [], version["digest"])
    stale = await put(house, where, {"text": "# other", "revision": 1}, status=409)
    assert stale["error"]["code"] == "generation_conflict"
    assert [(r["number"], r["reason"]) for r in await house.get(f"{where}/revisions")] == [
        (2, "filled in"),
        (1, "README.md of the version."),
    ]
    assert (await house.admin.get(f"/api/v1{where}?revision=1")).text == version["card"]
    assert (await house.get(f"{where}/check"))["complete_for_production"]


async def test_processing_is_part_of_every_build_and_refused_if_it_could_not_run(small_house: House) -> None:
    plain = await push(small_house, "v1.0.0")
    steps = json.dumps({"output": [{"do": "trim"}]}).encode()
    processed = await push(small_house, "v1.1.0", more={"processing.json": steps})
    files = {f["path"] for f in processed["files"]}
    assert "processing.json" in files
    assert processed["builds"][0]["digest"] != plain["builds"][0]["digest"]
    refused = await push(
        small_house, "v1.2.0", status=400, more={"processing.json": b'{"output": [{"do": "replace", "pattern": "("}]}'}
    )
    assert refused["error"]["param"] == "processing.json.output.0.pattern"
