"""Builds made of a version's weights: a real examiner at the real API makes them, control takes them in; they are measured, compared, kept, signed and served."""

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.control.storage.fsck import Damage, fsck
from penstock.control.storage.sweep import sweep
from penstock.control.versions.build_intake import BuildIntake
from penstock.core.digests import sha256_digest
from penstock.core.settings import EngineSettings
from penstock.engine.provenance import verify_build
from penstock.examiner.desk import Desk
from penstock.examiner.examiner import Examiner
from tests.control.house import TOKEN, House, eventually
from tests.engine.convert.models import write_gpt2, write_llama

pytestmark = pytest.mark.engine
SETTINGS = EngineSettings(kv_cache_mb=16, threads=1)
TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
SUITE = json.dumps({"id": "p", "score": {"type": "perplexity", "text": "One two three four"}})


def version_of(folder: Path) -> dict[str, bytes]:
    return {"README.md": b"# x", **{f"safetensors/{path.name}": path.read_bytes() for path in folder.iterdir()}}


class Works:
    """An examiner that works for the house, and control's taking in."""

    def __init__(self, house: House, client: httpx.AsyncClient) -> None:
        self.house = house
        self.examiner = Examiner(Desk(client, "here"), SETTINGS)
        self.intake = BuildIntake(house.control)

    async def all(self) -> int:
        """Work until nothing waits; how many pieces of work there were."""
        count = 0
        while True:
            worked = await self.examiner.step()
            taken = await self.intake.step()
            if not worked and not taken:
                return count
            count += worked


@pytest.fixture
async def works(small_house: House) -> AsyncIterator[Works]:
    async with small_house.client(TOKEN) as client:
        yield Works(small_house, client)


async def test_a_build_is_made_measured_kept_and_served(works: Works, tmp_path: Path) -> None:
    house = works.house
    await house.push("bot", "v1.0.0", version_of(write_llama(tmp_path / "m", layers=1, template=TEMPLATE)))
    await house.post("/suites", {"name": "words", "lines": SUITE})
    gates = {"suites": [{"suite": "words", "models": ["bot"]}]}
    await house.admin.put("/api/v1/environments/staging", json={"name": "staging", "spec": {"gates": gates}})
    at = "/models/bot/versions/v1.0.0"
    job = await house.post(f"{at}/builds", {"precision": "int4", "measure": False})
    assert (job["state"], job["steps"]) == ("queued", [])
    assert (await house.post(f"{at}/builds", {"precision": "int4"}))["id"] == job["id"]  # asked twice, made once
    assert await works.all() == 1
    done = await house.get(f"/builds/{job['id']}")
    assert (done["state"], done["detail"]) == ("done", "")
    assert [step["step"] for step in done["steps"]][-2:] == ["writing", "storing"]
    assert all(step["seconds"] >= 0 for step in done["steps"])
    assert "openvino" in done["converter"]
    [build] = await house.get(f"{at}/builds")
    assert (build["precision"], build["made"], build["digest"], build["size"]) == (
        "int4",
        True,
        done["build"],
        done["size"],
    )
    assert not list((house.control.data / "building").iterdir())

    await house.post(f"{at}/builds", {"precision": "fp32"})
    assert await works.all() == 3  # the build, its speed, its suite
    asked = (await house.post(f"{at}/tradeoff?build=false"))["asked"]
    assert (asked["builds"], len(asked["evaluations"])) == ([], 2)
    [speed] = [one for one in await house.get("/evaluations?state=queued") if one["kind"] == "speed"]
    await house.post(f"/evaluations/{speed['id']}/cancel", status=200)
    assert await works.all() == 1
    told = (await house.get(f"{at}/tradeoff?usd_per_hour=0.5"))["options"]
    assert [one["precision"] for one in told] == ["fp32", "fp16", "int8", "int4"]
    absent = ["there is no such build"]
    assert [one["waits"] for one in told] == [[], absent, absent, ["speed cancelled: Cancelled by admin."]]
    wide, narrow = told[0], told[3]
    assert (wide["baseline"], narrow["baseline"]) == (True, False)
    assert narrow["size"] < 0.6 * wide["size"]
    speed = wide["speed"]
    assert speed["low"] < speed["tokens_per_second"] < speed["high"]
    assert wide["usd_per_1000_answers"] == pytest.approx(speed["seconds_per_answer"] * 1000 / 3600 * 0.5)
    assert (narrow["speed"], narrow["usd_per_1000_answers"]) == (None, None)
    for one in (wide, narrow):
        [quality] = one["quality"]
        assert (quality["suite"], quality["measure"], quality["items"]) == ("words", "perplexity", 1)
        assert (quality["difference"] is None) == one["baseline"]
    surprise = narrow["quality"][0]  # by the build's own graph: rounding shows
    assert surprise["difference"] == pytest.approx(surprise["value"] / wide["quality"][0]["value"] - 1)
    assert abs(surprise["difference"]) > 1e-4
    no_price = (await house.get(f"{at}/tradeoff"))["options"][0]
    assert no_price["usd_per_1000_answers"] is None

    graph = await house.get(f"{at}/lineage")
    assert {(edge["source"], edge["relation"]) for edge in graph["edges"]} == {
        ("bot:v1.0.0/openvino-fp32", "converted_from"),
        ("bot:v1.0.0/openvino-int4", "quantised_from"),
    }
    actions = [one["action"] for one in await house.get("/audit?limit=500")]
    assert actions.count("build.request") == actions.count("build.commit") == 2
    metrics = (await house.admin.get("/metrics")).text
    assert 'penstock_build_jobs{state="done"} 2.0' in metrics

    # It outlives a sweep, is checked like a version's own files, and serves what its digest says.
    await sweep(house.control, grace_s=0.0)
    found = [one async for one in fsck(house.control)]
    assert not [one for one in found if isinstance(one, Damage)]
    revision = await house.post(
        "/promote", {"model": "bot", "label": "v1.0.0", "environment": "production", "precision": "int4"}
    )
    assert revision["config"]["precision"] == "int4"
    spec = await replica(house, "bot-v1.0.0-int4-0")
    args = dict(zip(spec.args[::2], spec.args[1::2], strict=True))
    folder = Path(spec.directory)
    assert verify_build(folder, Path(args["--provenance"]), [], expected=args["--trust"]) == args["--trust"]
    raw = bytearray((folder / "openvino_model.bin").read_bytes())
    raw[100] ^= 1
    (folder / "openvino_model.bin").write_bytes(raw)
    with pytest.raises(Exception, match=r"openvino-int4/openvino_model\.bin is damaged"):
        verify_build(folder, Path(args["--provenance"]), [], expected=args["--trust"])


async def replica(house: House, identity: str) -> Any:
    await eventually(lambda: identity in house.runtime.specs)
    return house.runtime.specs[identity]


async def test_a_made_build_is_signed_by_itself(works: Works, tmp_path: Path) -> None:
    house = works.house
    await house.push("bot", "v1.0.0", version_of(write_llama(tmp_path / "m", layers=1)))
    await house.post("/signers", {"name": "release"})
    at = "/models/bot/versions/v1.0.0"
    gates: dict[str, Any] = {"signature": {}}
    await house.admin.put("/api/v1/environments/production", json={"name": "production", "spec": {"gates": gates}})
    reply = await house.admin.post(f"/api/v1{at}/signatures", json={"signer": "release", "precision": "int8"})
    assert reply.status_code == 409  # there is none yet
    await house.post(f"{at}/builds", {"precision": "int8", "measure": False})
    await works.all()
    wish = {"model": "bot", "label": "v1.0.0", "environment": "production", "precision": "int8"}
    await house.post(f"{at}/signatures", {"signer": "release"})
    assert "signature" in (await house.post("/promote", wish, status=409))["error"]["message"]
    [mine] = await house.post(f"{at}/signatures", {"signer": "release", "precision": "int8"})
    assert await house.get(f"{at}/signatures?precision=int8") == [mine]
    await house.post("/promote", wish)
    spec = await replica(house, "bot-v1.0.0-int8-0")
    trusted = [value for flag, value in zip(spec.args, spec.args[1:], strict=False) if flag == "--trust"]
    assert trusted[1:] == [mine["public"]]
    place = spec.args[spec.args.index("--provenance") + 1]
    verify_build(Path(spec.directory), Path(place), trusted[1:], expected=trusted[0])


async def test_what_cannot_be_built_says_so(works: Works, tmp_path: Path) -> None:
    house = works.house
    await house.push("bot", "v1.0.0")
    at = "/models/bot/versions/v1.0.0"
    told = await house.post(f"{at}/builds", {"precision": "int8"}, status=409)
    assert told["error"]["code"] == "build_exists"
    told = await house.post(f"{at}/builds", {"precision": "int3"}, status=400)
    assert told["error"]["param"] == "precision"
    await house.push("bare", "v1.0.0", {"openvino-int8/openvino_model.bin": b"x", "README.md": b"# x"})
    told = await house.post("/models/bare/versions/v1.0.0/builds", {"precision": "int4"}, status=409)
    assert told["error"]["code"] == "no_weights"
    folder = write_gpt2(tmp_path / "m", layers=2)
    shutil.copyfile(write_gpt2(tmp_path / "one", layers=1) / "model.safetensors", folder / "model.safetensors")
    await house.push("short", "v1.0.0", version_of(folder))
    job = await house.post("/models/short/versions/v1.0.0/builds", {"precision": "int8"})
    await works.all()
    failed = await house.get(f"/builds/{job['id']}")
    assert failed["state"] == "failed"
    assert "h.1." in failed["detail"]
    [option] = [
        one
        for one in (await house.get("/models/short/versions/v1.0.0/tradeoff"))["options"]
        if one["precision"] == "int8"
    ]
    assert "could not be built" in option["waits"][0]
    again = await house.post("/models/short/versions/v1.0.0/builds", {"precision": "int8"})
    assert again["id"] != job["id"]  # a failed one is tried again
    assert (await house.post(f"/builds/{again['id']}/cancel", status=200))["state"] == "cancelled"
    await house.post(f"/builds/{again['id']}/cancel", status=409)
    assert await works.all() == 0


async def test_a_job_that_was_cut_off_begins_again(works: Works, tmp_path: Path) -> None:
    house = works.house
    await house.push("bot", "v1.0.0", version_of(write_llama(tmp_path / "m", layers=1)))
    job = await house.post("/models/bot/versions/v1.0.0/builds", {"precision": "fp16", "measure": False})
    async with house.client(TOKEN) as client:
        claimed = await Desk(client, "another").claim_build()  # an examiner that dies with it
        assert claimed is not None
        target = Path(claimed.target)
        target.mkdir(parents=True)
        (target / "half").write_bytes(b"x")
        assert await works.all() == 0  # its lease stands
        now = house.control.clock()
        house.control.clock = lambda: now + 60
        assert await works.all() == 1
        assert not await Desk(client, "another").tell_step(job["id"], "still at it")
    assert (await house.get(f"/builds/{job['id']}"))["state"] == "done"
    files = (await house.get("/models/bot/versions/v1.0.0/builds"))[0]
    assert files["precision"] == "fp16"


async def test_a_distilled_version_stands_in_the_table_of_its_teacher(works: Works, tmp_path: Path) -> None:
    house = works.house
    await house.push("bot", "v1.0.0", version_of(write_llama(tmp_path / "m", layers=1)))
    small = version_of(write_llama(tmp_path / "s", layers=1, width=32, heads=2, kv_heads=2, inner=32))
    files = {path: {"digest": sha256_digest(data), "size": len(data)} for path, data in small.items()}
    edge = {"relation": "distilled_from", "version": "bot:v1.0.0"}
    body = {"label": "v1.0.0-distilled", "files": files, "metadata": {"lineage": [edge]}, "idempotency_key": "d"}
    upload = await house.post("/models/bot/uploads", body)
    for data in small.values():
        if sha256_digest(data) in upload["missing"]:
            await house.admin.put(f"/api/v1/blobs/{sha256_digest(data)}", content=data)
    await house.post(f"/uploads/{upload['id']}/commit", status=200)
    at = "/models/bot/versions/v1.0.0"
    last = (await house.get(f"{at}/tradeoff"))["options"][-1]
    assert (last["version"], last["relation"], last["build"]) == ("bot:v1.0.0-distilled", "distilled_from", "")
    told = await house.post(f"{at}/tradeoff")
    jobs = [await house.get(f"/builds/{identity}") for identity in told["asked"]["builds"]]
    assert [(one["label"], one["precision"]) for one in jobs][-1] == ("v1.0.0-distilled", "int8")
