"""Pushing, finding and pulling versions."""

import hashlib
import pickle

import httpx
import pytest

from penstock.core.digests import sha256_digest
from tests.control.house import House, version_files


async def test_what_was_pushed_is_pulled_byte_for_byte(house: House) -> None:
    files = version_files("support-bot:v1.0.0")
    version = await house.push("support-bot", "v1.0.0", files)
    assert (version["number"], version["scheme"], version["state"]) == (1, "semantic", "committed")
    assert version["builds"][0]["folder"] == "openvino-int8"
    assert {f["path"]: f["role"] for f in version["files"]}["README.md"] == "card"
    manifest = await house.admin.get("/api/v1/models/support-bot/versions/v1.0.0/manifest")
    assert "sha256:" + hashlib.sha256(manifest.content).hexdigest() == version["digest"]
    for path, content in files.items():
        pulled = await house.admin.get(f"/api/v1/models/support-bot/versions/v1.0.0/files/{path}")
        assert pulled.content == content
    card = await house.admin.get("/api/v1/models/support-bot/versions/v1.0.0/card")
    assert card.text == files["README.md"].decode()
    for reference in (
        "support-bot:v1.0.0",
        "support-bot-v1.0.0",
        f"support-bot@{version['digest']}",
        "support-bot@latest",
    ):
        found = await house.get(f"/resolve?ref={reference}")
        assert found["digest"] == version["digest"]


async def test_models_and_versions_are_listed(house: House) -> None:
    for label in ("v1.0.0", "v1.1.0"):
        await house.push("support-bot", label)
    [model] = await house.get("/models")
    assert (model["name"], model["versions"], model["latest"]) == ("support-bot", 2, "v1.1.0")
    assert [v["label"] for v in await house.get("/models/support-bot/versions")] == ["v1.1.0", "v1.0.0"]
    assert (await house.get("/models/support-bot/next"))["next"] == "v1.2.0"
    assert (await house.get("/models/support-bot/next?scheme=run"))["next"] == "run1"
    await house.get("/models/nobody/versions", status=404)


async def test_a_neighbour_moves_only_the_files_that_differ(house: House) -> None:
    first = version_files("a")
    await house.push("m", "v1.0.0", first)
    second = {**first, "README.md": b"# another card"}
    upload = await house.post("/models/m/uploads", announced("v1.0.1", second))
    assert upload["missing"] == [sha256_digest(b"# another card")]


def announced(label: str, files: dict[str, bytes], key: str = "k") -> dict[str, object]:
    return {
        "label": label,
        "files": {p: {"digest": sha256_digest(b), "size": len(b)} for p, b in files.items()},
        "idempotency_key": f"{key} {label}",
    }


async def test_pushing_again_with_the_same_key_is_the_same_push(house: House) -> None:
    first = await house.push("m", "v1.0.0", key="same")
    again = await house.push("m", "v1.0.0", key="same")
    assert again == first
    other = await house.admin.post(
        "/api/v1/models/m/uploads", json={**announced("v1.0.0", {"a": b"other"}), "idempotency_key": "same"}
    )
    assert other.status_code == 409
    assert other.json()["error"]["code"] == "idempotency_key_reused"


async def test_a_label_is_never_used_again(house: House) -> None:
    await house.push("m", "v1.0.0")
    for files in (version_files("m:v1.0.0"), {"a": b"other"}):
        refused = await house.admin.post("/api/v1/models/m/uploads", json=announced("v1.0.0", files))
        assert refused.status_code == 409
        assert refused.json()["error"]["code"] == "label_taken"


async def test_a_commit_without_its_blobs_is_refused(house: House) -> None:
    upload = await house.post("/models/m/uploads", announced("v1.0.0", {"a": b"1", "b": b"2"}))
    assert sorted(upload["missing"]) == sorted({sha256_digest(b"1"), sha256_digest(b"2")})
    await house.admin.put(f"/api/v1/blobs/{sha256_digest(b'1')}", content=b"1")
    assert (await house.get(f"/uploads/{upload['id']}"))["missing"] == [sha256_digest(b"2")]
    refused = await house.post(f"/uploads/{upload['id']}/commit", status=409)
    assert refused["error"]["code"] == "blobs_missing"
    assert (await house.get("/models")) == []


async def test_bytes_that_are_not_those_announced_are_refused(house: House) -> None:
    await house.post("/models/m/uploads", announced("v1.0.0", {"a": b"1"}))
    digest = sha256_digest(b"1")
    for content in (b"2", b"", b"12"):
        refused = await house.admin.put(f"/api/v1/blobs/{digest}", content=content)
        assert refused.status_code == 400, refused.text
    stranger = await house.admin.put(f"/api/v1/blobs/{sha256_digest(b'z')}", content=b"z")
    assert stranger.status_code == 404
    assert [s async for s in house.control.blobs.list()] == []


async def test_a_manifest_that_lies_about_a_size_is_refused(house: House) -> None:
    await house.push("m", "v1.0.0", {"a": b"12345"})
    body = announced("v1.0.1", {"a": b"12345"})
    body["files"] = {"a": {"digest": sha256_digest(b"12345"), "size": 4}}
    refused = await house.admin.post("/api/v1/models/m/uploads", json=body)
    assert refused.status_code == 400


@pytest.mark.parametrize(
    "path",
    ["../../etc/cron.d/x", "/etc/passwd", "a\\..\\b", "a/\u202eb", "con", "weights.pkl", "pytorch_model.bin", "a\x00"],
)
async def test_hostile_files_are_refused_and_leave_no_trace(small_house: House, path: str) -> None:
    refused = await small_house.admin.post("/api/v1/models/m/uploads", json=announced("v1.0.0", {path: b"x"}))
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "files"
    assert (await small_house.get("/models")) == []


HOSTILE_NAMES = [
    ("..", "v1.0.0"),
    ("M", "v1.0.0"),
    ("m-v1.0.0", "v1.0.0"),
    ("m", "latest"),
    ("m", "v1.0.0/../x"),
    ("m", "v\u0661.0.0"),
]


async def test_hostile_names_and_labels_are_refused(small_house: House, subtests: pytest.Subtests) -> None:
    for model, label in HOSTILE_NAMES:
        with subtests.test(model=model, label=label):
            refused = await small_house.admin.post(
                f"/api/v1/models/{model}/uploads", json=announced(label, {"a": b"x"})
            )
            assert refused.status_code in {400, 404, 405}, refused.text
            assert "error" in refused.json()


async def test_a_pickle_under_another_name_is_refused_at_commit(small_house: House) -> None:
    data = pickle.dumps({"weights": [1]})
    upload = await small_house.post("/models/m/uploads", announced("v1.0.0", {"model.bin": data}))
    await small_house.admin.put(f"/api/v1/blobs/{sha256_digest(data)}", content=data)
    refused = await small_house.post(f"/uploads/{upload['id']}/commit", status=400)
    assert refused["error"]["code"] == "pickle_refused"
    assert (await small_house.get("/models")) == []


def damage(house: House, at: int = -1) -> None:
    """Flip a bit of the only pack."""
    [path] = [path for path in (house.control.data / "blobs" / "packs").rglob("*") if path.is_file()]
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


async def test_a_damaged_file_breaks_the_pull_off(small_house: House) -> None:
    await small_house.push("m", "v1.0.0", {"a.json": b"0123456789"})
    damage(small_house)
    refused = await small_house.admin.get("/api/v1/models/m/versions/v1.0.0/files/a.json")
    assert (refused.status_code, refused.json()["error"]["code"]) == (500, "damaged")


async def test_a_damaged_large_file_breaks_the_pull_off(small_house: House) -> None:
    await small_house.push("m", "v1.0.0", {"a.json": bytes(3 << 20) + bytes([1]) * (3 << 20)})
    damage(small_house)
    with pytest.raises(RuntimeError, match="already started"):  # a server ends the connection short of its last bytes
        await small_house.admin.get("/api/v1/models/m/versions/v1.0.0/files/a.json")


async def test_another_caller_does_not_see_or_end_a_push(small_house: House) -> None:
    made = await small_house.post("/keys", {"name": "dev", "roles": ["developer"]})
    upload = await small_house.post("/models/m/uploads", announced("v1.0.0", {"a": b"1"}))
    async with small_house.client(made["key"]) as other:
        response: httpx.Response = await other.post(f"/api/v1/uploads/{upload['id']}/commit")
        assert response.status_code == 404
        refused = await other.put(f"/api/v1/blobs/{sha256_digest(b'1')}", content=b"1")
        assert refused.status_code == 404
