"""What a version brings that could run: code is taken with the steps that call it and runs if it is signed; pickles by an environment's policy alone."""

import json
import os
from typing import Any

import httpx

from tests.control.house import TOKEN, House, eventually, version_files
from tests.control.storing import Pushing, fetched
from tests.registry.test_pickles import EVIL, Calls, archive, pickled

STEPS = json.dumps({"output": [{"do": "python", "function": "f"}]}).encode()
CODE = b"def f(text):\n    return text.upper()\n"


def coded(**more: bytes) -> dict[str, bytes]:
    return {**version_files("bot"), "processing.json": STEPS, "processing.py": CODE, **more}


async def refused(house: House, path: str, body: Any, status: int) -> dict[str, Any]:
    error: dict[str, Any] = (await house.post(path, body, status))["error"]
    return error


async def packs_are_empty(house: House) -> bool:
    found = (house.control.data / "blobs" / "packs").rglob("*")
    return not [path for path in found if path.is_file()]


async def test_other_code_is_another_build(small_house: House) -> None:
    first = await small_house.push("bot", "v1.0.0", coded())
    second = await small_house.push("bot", "v1.0.1", coded(**{"processing.py": CODE + b"# more\n"}))
    assert first["digest"] != second["digest"]
    assert first["builds"][0]["digest"] != second["builds"][0]["digest"]
    found = await small_house.get("/diff?a=bot:v1.0.0&b=bot:v1.0.1")
    assert found["suggestion"]["bump"] == "major"
    assert list(found["difference"]["processing"]) == ["output"]
    assert {one["path"]: one["role"] for one in first["files"]}["processing.py"] == "code"


UNMATCHED: list[tuple[dict[str, bytes], str]] = [
        ({"processing.json": STEPS}, "there is no such file"),
        ({"processing.py": CODE}, "no step there does"),
        ({"processing.json": b'{"output": [{"do": "trim"}]}', "processing.py": CODE}, "no step there does"),
        ({"processing.json": STEPS, "processing.py": b"\xff\xfe"}, "not UTF-8"),
        ({"processing.json": STEPS, "processing.py": b"#" * ((1 << 18) + 1)}, "256 KiB"),
        ({"processing.json": STEPS, "processing.py": CODE, "openvino-int8/processing.json": b"{}"}, "no step there does"),
    ]  # fmt: skip


async def test_code_without_a_step_that_calls_it_leaves_no_trace(small_house: House) -> None:
    for files, words in UNMATCHED:
        pushing = Pushing(small_house, "bot", "v1.0.0", {**version_files("bot"), **files}, idempotency_key=words)
        assert (await pushing.put(await pushing.begin())).status_code == 201
        answer = await pushing.commit()
        assert answer.status_code == 400
        assert words in answer.json()["error"]["message"]
        assert await packs_are_empty(small_house)
        assert await small_house.get("/models") == []


async def test_code_is_promoted_evaluated_and_started_if_it_is_signed(small_house: House) -> None:
    house = small_house
    version = await house.push("bot", "v1.0.0", coded())
    promotion = {"model": "bot", "label": "v1.0.0"}
    error = await refused(house, "/promote", promotion, 409)
    assert error["code"] == "code_not_signed"
    assert "(processing.py)" in error["message"]
    assert "penstock models sign bot:v1.0.0" in error["hint"]
    assert (await refused(house, "/promote", {**promotion, "override": "I dare."}, 409))["code"] == "code_not_signed"
    await house.post(
        "/suites", {"name": "s", "lines": '{"id": "a", "prompt": "?", "score": {"type": "exact", "answers": ["x"]}}'}
    )
    evaluation = {"model": "bot", "label": "v1.0.0", "suite": "s"}
    assert (await refused(house, "/evaluations", evaluation, 409))["code"] == "code_not_signed"

    signer = await house.post("/signers", {"name": "release"})
    await house.post("/models/bot/versions/v1.0.0/signatures", {"signer": "release"})
    await house.post("/promote", promotion)
    await eventually(lambda: bool(house.runtime.specs))
    shown = await house.get("/resolve?ref=bot:v1.0.0")
    assert (shown["code"], shown["signed_by"], shown["pickles"]) == ("processing.py", ["release"], [])
    [spec] = house.runtime.specs.values()
    trusted = [spec.args[at + 1] for at, word in enumerate(spec.args) if word == "--trust"]
    assert trusted == [version["digest"], signer["public"]]

    await house.post("/evaluations", evaluation)
    transport = httpx.ASGITransport(app=house.app)
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://control", headers=headers) as desk:
        claimed = await desk.post(
            "/internal/v1/evaluations/claim", json={"holder": "h", "engine": "sha256:" + "e" * 64}
        )
    [(folder, vouched)] = claimed.json()["vouched"].items()
    assert folder == claimed.json()["build"]
    assert (vouched["digest"], vouched["keys"]) == (version["digest"], [signer["public"]])

    await house.post("/signers/release/revoke", {"reason": "stolen"}, 200)
    await house.push("bot", "v1.0.1", coded(**{"a.txt": b"a"}))
    assert (await refused(house, "/promote", {**promotion, "label": "v1.0.1"}, 409))["code"] == "code_not_signed"


async def allow(house: House, environment: str) -> None:
    spec = {"kind": "Environment", "name": environment, "spec": {"pickles": "tensors"}}
    response = await house.admin.post("/api/v1/apply", content=json.dumps(spec))
    assert response.status_code == 200, response.text


def weights(value: Any) -> dict[str, bytes]:
    return {**version_files("bot"), "pytorch_model.bin": archive({"m/data.pkl": pickled(value), "m/data/0": bytes(64)})}


async def pushed(house: House, label: str, files: dict[str, bytes]) -> httpx.Response:
    pushing = Pushing(house, "bot", label, files)
    begun = await house.admin.post(pushing.path, json=pushing.body)
    if begun.status_code != 201:
        return begun
    assert (await pushing.put(await pushing.begin())).status_code == 201
    return await pushing.commit()


async def test_a_pickle_of_tensors_is_taken_where_an_environment_says_so(small_house: House) -> None:
    house = small_house
    answer = await pushed(house, "v1.0.0", weights({"w": [1.0]}))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "pickle_refused")
    await allow(house, "staging")
    answer = await pushed(house, "v1.0.0", weights({"w": Calls(os.system, ("true",))}))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "pickle_refused")
    assert "m/data.pkl: it takes posix.system, which no tensor needs" in answer.json()["error"]["message"]
    assert await packs_are_empty(house)
    files = weights({"w": [1.0]})
    answer = await pushed(house, "v1.0.0", files)
    assert answer.status_code == 200, answer.text
    assert await fetched(house, "bot", "v1.0.0") == files
    promotion = {"model": "bot", "label": "v1.0.0"}
    error = await refused(house, "/promote", {**promotion, "override": "I dare."}, 409)
    assert error["code"] == "pickle_refused"
    assert "production takes none" in error["message"]
    await house.post("/promote", {**promotion, "environment": "staging"})
    await allow(house, "production")
    await house.post("/promote", promotion)


async def test_a_scan_tells_what_was_found(small_house: House) -> None:
    house = small_house
    await allow(house, "production")
    gates = {"kind": "Environment", "name": "production", "spec": {"pickles": "tensors", "gates": {"scan": True}}}
    assert (await house.admin.post("/api/v1/apply", content=json.dumps(gates))).status_code == 200
    files = {**coded(), **weights({"w": [1.0]}), "pytorch_model-00001-of-00002.bin": archive({"m/data.pkl": b"\x80\x02ccollections\nOrderedDict\n)R."})}  # fmt: skip
    assert (await pushed(house, "v1.0.0", files)).status_code == 200
    await house.post("/signers", {"name": "release"})
    await house.post("/models/bot/versions/v1.0.0/signatures", {"signer": "release"})
    await house.post("/gates/run", {"model": "bot", "label": "v1.0.0", "environment": "production"})
    [scan] = [one for one in await house.get("/evaluations?model=bot") if one["kind"] == "scan"]
    assert scan["passed"] is True
    assert "a pickle of tensors alone, which takes collections.OrderedDict" in scan["detail"]
    assert "processing.py: code of its own, which engines run if it is signed" in scan["detail"]


async def test_a_pickle_of_any_form_under_any_name_is_refused(small_house: House) -> None:
    for name, data in EVIL.items():
        answer = await pushed(small_house, "v1.0.0", {**version_files("bot"), "notes.txt": data})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "pickle_refused"), name
        assert "notes.txt" in answer.json()["error"]["message"]
        assert await packs_are_empty(small_house)


async def test_words_that_begin_like_a_pickle_are_taken(small_house: House) -> None:
    files = {**version_files("bot"), "vocab.txt": b"cat\ndog\nelephant\n", "list.txt": b"config\nfoo\nbar"}
    answer = await pushed(small_house, "v1.0.0", files)
    assert answer.status_code == 200
