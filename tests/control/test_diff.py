"""Differences between versions through the API, and what stands behind an answer."""

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest

from penstock.control.storage.ranges import Stretch
from tests.control.bed import exchange
from tests.control.house import House
from tests.control.test_versions_told import DATA, NAMED, push, put


def safetensors(tensors: dict[str, Any]) -> bytes:
    """A file of 32-bit floats, in the order given."""
    header: dict[str, Any] = {}
    body = b""
    for name, values in tensors.items():
        data = np.asarray(values, dtype="<f4").tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(np.shape(values)),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + body


def tokenizer(*tokens: str) -> bytes:
    return json.dumps({"model": {"vocab": {token: at for at, token in enumerate(tokens)}, "merges": []}}).encode()


async def versions(house: House, *files: dict[str, bytes], metadata: tuple[dict[str, Any], ...] = ()) -> None:
    for number, one in enumerate(files):
        whole = {f"safetensors/{name}": data for name, data in one.items()}
        await push(house, f"v1.{number}.0", metadata[number] if metadata else {}, more=whole)


async def test_what_differs_is_told_by_tensor_with_the_bump(small_house: House) -> None:
    house = small_house
    draw = np.random.default_rng(1)
    a, b = draw.normal(size=(64, 32)), draw.normal(size=(48,))
    step = draw.normal(size=(48,)) * 0.01
    await versions(
        house,
        {
            "model.safetensors": safetensors({"first": a, "second": b}),
            "tokenizer.json": tokenizer("a", "b"),
            "chat_template.jinja": b"{{ a }}",
        },
        {  # in another order, in two files, one tensor moved
            "model-1.safetensors": safetensors({"second": b + step}),
            "model.safetensors": safetensors({"first": a}),
            "tokenizer.json": tokenizer("a", "b", "c"),
            "chat_template.jinja": b"{{ b }}",
        },
        metadata=(
            {"metrics": {"right": {"value": 0.8, "lower": 0.78, "upper": 0.82, "higher_is_better": True}}},
            {"metrics": {"right": {"value": 0.9, "lower": 0.88, "upper": 0.92, "higher_is_better": True}}},
        ),
    )
    told = await house.get("/diff?a=m:v1.0.0&b=m@latest")
    d, suggestion = told["difference"], told["suggestion"]
    assert d["tensors"]["same"] == 1
    [moved] = d["tensors"]["changed"]
    assert (moved["name"], moved["change"]) == ("second", "values")
    x, y = b.astype("<f4").astype(float), (b + step).astype("<f4").astype(float)
    assert moved["relative"] == pytest.approx(np.linalg.norm(y - x) / np.linalg.norm(x))
    assert moved["cosine"] == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    assert d["tokenizer"]["examples"]["added"] == ["c"]
    assert d["template"][-2:] == ["-{{ a }}", "+{{ b }}"]
    assert d["metrics"][0] == {"name": "right", "before": 0.8, "after": 0.9, "better": True, "clear": True}
    assert suggestion["bump"] == "minor"
    assert suggestion["reasons"][0].startswith("minor (weights): the values of 1 tensors differ")
    nothing = await house.get("/diff?a=m:v1.0.0&b=m:v1.0.0")
    assert nothing["suggestion"] == {"bump": None, "reasons": ["Nothing differs."]}


async def test_another_architecture_is_another_major_version(small_house: House) -> None:
    await versions(
        small_house,
        {"model.safetensors": safetensors({"a": [1.0], "b": [[1.0]]})},
        {"model.safetensors": safetensors({"b": [[1.0], [2.0]], "c": [1.0]})},
    )
    told = await small_house.get("/diff?a=m:v1.0.0&b=m:v1.1.0")
    assert {(t["name"], t["change"]) for t in told["difference"]["tensors"]["changed"]} == {
        ("a", "removed"),
        ("b", "shape"),
        ("c", "added"),
    }
    assert told["suggestion"]["bump"] == "major"


async def test_memory_stays_flat_while_large_tensors_are_compared(small_house: House) -> None:
    rows = np.arange(6 << 20, dtype="<f4")
    await versions(
        small_house,
        {"model.safetensors": safetensors({"w": rows})},
        {"model.safetensors": safetensors({"w": rows + np.float32(0.5)})},
    )
    before = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        told = await small_house.get("/diff?a=m:v1.0.0&b=m:v1.1.0")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        if not before:
            tracemalloc.stop()
    assert told["difference"]["tensors"]["changed"][0]["relative"] > 0
    assert peak < 120 << 20, "two tensors of 24 MiB: some pieces of each as 64-bit floats, never both whole"


async def test_a_stretch_is_the_bytes_of_the_file(small_house: House) -> None:
    data = np.random.default_rng(2).bytes(9 << 20)
    await push(small_house, "v1.0.0", more={"safetensors/notes.txt": data})
    blobs = small_house.control.blobs
    manifest = (await small_house.get("/models/m/versions/v1.0.0"))["files"]
    digest = next(one["digest"] for one in manifest if one["path"] == "safetensors/notes.txt")
    for start, end, step in (
        (0, len(data), 1 << 20),
        (5, 5 << 20, 3 << 20),
        (len(data) - 7, len(data), 100),
        (9, 9, 1),
    ):
        stretch = Stretch(blobs, digest, await blobs.file(digest), start, end)
        found = b""
        while piece := await stretch.take(step):
            found += piece
        await stretch.close()
        assert found == data[start:end]


async def test_what_stands_behind_an_answer_is_told_for_any_request(house: House) -> None:
    await house.post("/datasets", {"name": "talks", "spec": NAMED})
    await push(house, "v1.0.0", {"training": {"data": [{"dataset": "talks"}]}})
    version = await push(house, "v1.1.0", {"lineage": [{"relation": "fine_tuned_from", "version": "m:v1.0.0"}]})
    await put(house, "/models/m/aliases/tried", {"label": "v1.1.0"})
    body = {"model": "m", "label": "@tried", "environment": "staging", "reason": "it is better"}
    promoted = await house.post("/promote?wait=20", body)
    assert (promoted["state"], promoted["digest"]) == ("live", version["digest"])
    at = promoted["live_at"] + 1
    told = await house.get(f"/models/m/versions/{version['digest']}/provenance?at={at}&pool=m-v1.1.0-int8")
    assert told["build"]["digest"] == version["builds"][0]["digest"]
    [deployed] = told["deployments"]
    assert (deployed["environment"], deployed["principal"], deployed["reason"]) == ("staging", "admin", "it is better")
    assert deployed["gates"] is None
    assert [(edge["version"], edge["relation"], edge["target"]) for edge in told["lineage"]] == [
        ("m:v1.1.0", "fine_tuned_from", "m:v1.0.0"),
        ("m:v1.0.0", "trained_on", "talks"),
    ]
    [data] = told["data"]
    assert (data["digest"], data["custody"]["gaps"]) == (DATA, [])
    assert data["custody"]["links"][0]["registered_by"] == "admin"
    before = await house.get(f"/models/m/versions/v1.1.0/provenance?at={promoted['created_at'] - 1}")
    assert before["deployments"] == []
    await house.get(f"/requests/{exchange(1).id}/provenance", status=404)


async def test_texts_too_long_to_align_are_counted(small_house: House) -> None:
    one, other = ("\n".join(["same", *(f"{word} {n % 70}" for n in range(60_000))]).encode() for word in "ab")
    await versions(small_house, {"chat_template.jinja": one}, {"chat_template.jinja": other})
    told = await small_house.get("/diff?a=m:v1.0.0&b=m:v1.1.0")
    assert told["difference"]["template"][2] == "... 60000 lines from line 2 on, more than are compared"
