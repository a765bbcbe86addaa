"""Versions stored by blocks: what moves, what is checked, what is swept, what is made small."""

import asyncio
import hashlib
import random
import time
from pathlib import Path

import numpy as np
import pytest
from obstore.store import MemoryStore

from penstock.control.context import Control
from penstock.control.storage import sweep as sweeping
from penstock.control.storage.storekeeper import Storekeeper
from penstock.control.storage.thin import thin_next
from penstock.control.versions.builds import Builds
from penstock.core.digests import sha256_digest
from penstock.registry.blocks import Block, block_name
from penstock.store.packs import ObjectPacks
from penstock.store.whole_files import whole_key
from tests.control.house import House
from tests.control.storing import Pushing, checked, fetched, model, push, weights

CARD = b"# a card"


def packs_of(house: House) -> list[Path]:
    return [path for path in (house.control.data / "blobs" / "packs").rglob("*") if path.is_file()]


async def swept(house: House, **body: object) -> dict[str, int]:
    answer: dict[str, int] = await house.post("/storage/gc", {"grace_s": 0, **body}, status=200)
    return answer


async def test_a_version_pushed_by_blocks_is_the_one_pushed_whole(house: House) -> None:
    files = {"README.md": CARD, "model.safetensors": weights(model()), "empty.txt": b""}
    by_blocks = await push(house, "m", "v1.0.0", files)
    whole = await house.push("w", "v1.0.0", files)
    assert by_blocks["digest"] == whole["digest"]
    assert {f["path"]: f["digest"] for f in by_blocks["files"]} == {p: sha256_digest(b) for p, b in files.items()}
    assert await fetched(house, "m", "v1.0.0") == files
    assert (await house.get("/storage"))["stored"] < 1.02 * sum(len(data) for data in files.values())
    assert (await checked(house))[0] == []


async def test_a_neighbour_moves_the_tensors_that_differ(small_house: House) -> None:
    before = model(layers=8)
    await push(small_house, "m", "v1.0.0", {"model.safetensors": weights(before)})
    after = {**before, "layers.3.weight": before["layers.3.weight"] + 1, "layers.9.weight": np.ones((128, 128))}
    shuffled = dict(sorted(after.items(), reverse=True))
    differ = 2 * 128 * 128 * 2
    pushing = Pushing(small_house, "m", "v1.1.0", {"model.safetensors": weights(shuffled)})
    await pushing.push()
    assert differ <= pushing.moved <= 1.15 * differ
    again = Pushing(small_house, "m", "v1.2.0", {"model.safetensors": weights(shuffled)})
    await again.push()
    assert again.moved == 0


async def test_a_push_that_broke_off_goes_on_where_it_was(small_house: House) -> None:
    files = {"model.safetensors": weights(model(layers=6))}
    first = Pushing(small_house, "m", "v1.0.0", files)
    wanted = await first.begin()
    assert (await first.put(wanted[3:])).status_code == 201  # out of order
    refused = await first.commit()
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "blobs_missing")
    second = Pushing(small_house, "m", "v1.0.0", files)
    assert await second.begin() == wanted[:3]
    assert second.id == first.id
    version = await second.push()
    assert version["files"][0]["digest"] == sha256_digest(files["model.safetensors"])
    assert (await second.commit()).json()["digest"] == version["digest"]


async def test_blocks_of_other_bytes_or_not_announced_are_refused_and_leave_nothing(small_house: House) -> None:
    pushing = Pushing(small_house, "m", "v1.0.0", {"model.safetensors": weights(model())})
    wanted = await pushing.begin()
    right = b"".join(pushing.bytes[block.name] for block in wanted)
    for spoiled, code in (
        (right[:-1] + b"!", "digest_mismatch"),
        (right[:-1], "invalid_value"),
        (right + b"!", "invalid_value"),
        (b"", "invalid_value"),
    ):
        refused = await pushing.put(wanted, spoiled)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, code)
    stranger = await pushing.put([Block("0" * 64, 3)], b"abc")
    assert (stranger.status_code, "not announced" in stranger.text) == (400, True)
    assert packs_of(small_house) == []
    assert (await pushing.commit()).status_code == 409
    assert await small_house.get("/models") == []


async def test_an_announced_digest_must_be_that_of_the_blocks(small_house: House) -> None:
    pushing = Pushing(small_house, "m", "v1.0.0", {"model.safetensors": weights(model())})
    entry = pushing.body["files"]["model.safetensors"]
    entry["digest"] = sha256_digest(b"something else")
    assert (await pushing.put(await pushing.begin())).status_code == 201
    refused = await pushing.commit()
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "digest_mismatch")
    assert "model.safetensors" in refused.json()["error"]["message"]
    assert packs_of(small_house) == []  # no trace
    assert (await small_house.get("/storage"))["blocks"] == 0


async def test_hostile_weights_are_refused_at_the_end_and_leave_no_trace(small_house: House) -> None:
    def header(text: str, data: int) -> bytes:
        return len(text).to_bytes(8, "little") + text.encode() + bytes(data)

    tensors = ",".join(f'"t{i}":{{"dtype":"U8","shape":[1],"data_offsets":[{i},{i + 1}]}}' for i in range(10_000))
    every = {
        "overlap": header(
            '{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[8],"data_offsets":[4,12]}}',
            12,
        ),
        "many": header("{" + tensors + "}", 10_000),
        "pickle": b"\x80\x04\x95" + bytes(100),
        "zip": b"PK\x03\x04" + bytes(100),
        "header": (1 << 40).to_bytes(8, "little") + b"{}",
    }
    for kind, hostile in every.items():
        path = "model.bin" if kind in {"pickle", "zip"} else "model.safetensors"
        pushing = Pushing(small_house, "m", "v1.0.0", {path: hostile, "config.json": b"{}"}, idempotency_key=kind)
        for part in [await pushing.begin()]:
            assert (await pushing.put(part)).status_code == 201
        refused = await pushing.commit()
        assert (refused.status_code, refused.json()["error"]["code"]) == (
            400,
            "pickle_refused" if kind in {"pickle", "zip"} else "bad_weights",
        )
        assert path in refused.json()["error"]["message"]
        assert packs_of(small_house) == []
        assert (await small_house.get("/storage"))["blocks"] == 0
        assert await small_house.get("/models") == []


async def test_a_refused_push_takes_nothing_from_others(small_house: House) -> None:
    shared = weights(model())
    await push(small_house, "m", "v1.0.0", {"model.safetensors": shared})
    pushing = Pushing(
        small_house, "m", "v1.0.1", {"model.safetensors": shared, "model.bin": b"\x80\x04\x95" + bytes(9)}
    )
    assert (await pushing.put(await pushing.begin())).status_code == 201
    assert (await pushing.commit()).status_code == 400
    assert await fetched(small_house, "m", "v1.0.0") == {"model.safetensors": shared}


async def test_what_nothing_needs_is_swept_and_nothing_else(house: House) -> None:
    first, second = weights(model(1)), weights({**model(1), "layers.3.weight": model(2)["layers.3.weight"]})
    await push(house, "m", "v1.0.0", {"model.safetensors": first})
    await push(house, "m", "v1.0.1", {"model.safetensors": second})
    await push(house, "m", "v1.0.2", {"model.safetensors": weights(model(3))})
    opened = Pushing(house, "n", "v1.0.0", {"model.safetensors": weights(model(4))})
    wanted = await opened.begin()
    assert (await opened.put(wanted[:2])).status_code == 201
    assert (await swept(house))["blocks"] == 0
    for label in ("v1.0.0", "v1.0.2"):
        await house.post(f"/models/m/versions/{label}/state", {"state": "deleted", "reason": "over"}, status=200)
    assert (await swept(house, dry_run=True))["files"] == 2
    assert (await swept(house, grace_s=3600))["files"] == 0
    went = await swept(house)
    assert (went["files"], went["blocks"]) == (
        2,
        5,
    )  # one tensor, and four: the others and the header are of v1.0.1, too
    assert await fetched(house, "m", "v1.0.1") == {"model.safetensors": second}
    assert (await house.get("/models/m/versions/v1.0.0/blocks", status=404))["error"]["code"] == "not_found"
    assert [block.name for block in await opened.begin()] == [block.name for block in wanted[2:]]
    await opened.push()
    assert (await checked(house))[0] == []
    again = Pushing(house, "m", "v1.0.3", {"model.safetensors": first})
    await again.push()  # what was swept is sent again
    assert again.moved > 0
    assert (await checked(house))[0] == []


async def test_what_is_pulled_or_pinned_stays(small_house: House) -> None:
    for label, seed in (("v1.0.0", 1), ("v1.0.1", 2), ("v1.0.2", 3)):
        await push(small_house, "m", label, {"model.safetensors": weights(model(seed))})
    await small_house.get("/models/m/versions/v1.0.0/blocks")
    await small_house.post("/pins", {"model": "m", "label": "v1.0.1", "reason": "for the record"})
    for label in ("v1.0.0", "v1.0.1", "v1.0.2"):
        await small_house.post(f"/models/m/versions/{label}/state", {"state": "deleted", "reason": "over"}, status=200)
    assert (await swept(small_house))["files"] == 1
    for label, seed in (("v1.0.0", 1), ("v1.0.1", 2)):
        assert await fetched(small_house, "m", label) == {"model.safetensors": weights(model(seed))}
    await small_house.post("/pins/remove", {"model": "m", "label": "v1.0.1", "reason": "done"}, status=200)
    small_house.control.clock = lambda: time.time() + 7200
    assert (await swept(small_house))["files"] == 2
    assert packs_of(small_house) == []


async def test_what_a_killed_process_left_is_swept(small_house: House) -> None:
    await push(small_house, "m", "v1.0.0", {"a.json": b"{}"})
    stray = small_house.control.data / "blobs" / "packs" / "ab" / ("ab" * 16)
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"half of a pack")
    assert (await checked(small_house))[0] == []
    assert (await swept(small_house))["freed"] == 14
    assert not stray.exists()


async def test_each_flipped_byte_is_told_by_file_and_tensor(small_house: House) -> None:
    data = weights(model(layers=5))
    await push(small_house, "m", "v1.0.0", {"sub/model.safetensors": data})
    [pack] = packs_of(small_house)
    assert pack.read_bytes() == data  # the pack is the file
    begin, side = 8 + int.from_bytes(data[:8], "little"), 128 * 128 * 2
    draw = random.Random(5)
    for at in (4, begin - 3, begin, len(data) - 1, *(draw.randrange(len(data)) for _ in range(8))):
        raw = bytearray(data)
        raw[at] ^= 1 << draw.randrange(8)
        pack.write_bytes(raw)
        [damage], done = await checked(small_house)
        assert done["damaged"] == 1
        assert (damage["version"], damage["file"]) == ("m:v1.0.0", "sub/model.safetensors")
        assert damage["start"] <= at < damage["end"]
        assert damage["tensors"] == ([] if at < begin else [f"layers.{(at - begin) // side}.weight"])
        refused = await small_house.admin.get("/api/v1/models/m/versions/v1.0.0/files/sub/model.safetensors")
        assert refused.json()["error"]["code"] == "damaged"
        with pytest.raises(AssertionError):
            await fetched(small_house, "m", "v1.0.0")
    await checked(small_house, forget=True)
    mended = Pushing(small_house, "m", "v1.0.1", {"sub/model.safetensors": data})
    await mended.push()
    assert 0 < mended.moved < len(data)
    assert (await checked(small_house))[0] == []
    assert await fetched(small_house, "m", "v1.0.0") == {"sub/model.safetensors": data}


async def test_a_pack_that_is_gone_or_cut_off_is_told(small_house: House) -> None:
    await push(small_house, "m", "v1.0.0", {"model.safetensors": weights(model())})
    [pack] = packs_of(small_house)
    pack.write_bytes(pack.read_bytes()[:-1])
    assert [d["tensors"] for d in (await checked(small_house))[0]] == [["layers.3.weight"]]
    pack.unlink()
    assert len((await checked(small_house))[0]) == 5


async def test_a_full_fine_tune_is_a_delta_that_gives_it_back(house: House) -> None:
    random = np.random.default_rng(9)
    base = model(layers=3, side=256)
    tuned = {name: values + random.normal(0, 1e-4, values.shape) for name, values in base.items()}
    further = {name: values + random.normal(0, 1e-4, values.shape) for name, values in tuned.items()}
    files = {
        label: {"model.safetensors": weights(one)}
        for label, one in (("v1.0.0", base), ("v1.1.0", tuned), ("v1.2.0", further))
    }
    for label, one in files.items():
        await push(house, "m", label, one)
    while await thin_next(house.control):
        pass
    await swept(house)
    told = await house.get("/storage")
    assert (told["deltas"], told["waiting"]) == (6, 0)
    assert told["stored"] == told["live"] < 0.6 * told["logical"]
    for label, one in files.items():
        assert await fetched(house, "m", label) == one
    assert (await checked(house))[0] == []
    async with house.control.database.read() as connection:
        from sqlalchemy import select

        from penstock.store.schema_storage import stored_blocks

        rows = (await connection.execute(select(stored_blocks.c.name, stored_blocks.c.base))).all()
    bases = {row.base for row in rows if row.base is not None}
    assert not bases & {row.name for row in rows if row.base is not None}  # never more than one deep
    await house.post("/models/m/versions/v1.0.0/state", {"state": "deleted", "reason": "over"}, status=200)
    await swept(house)
    for label in ("v1.1.0", "v1.2.0"):  # a base outlives its version
        assert await fetched(house, "m", label) == files[label]
    assert (await checked(house))[0] == []


async def test_whole_files_of_older_folders_are_taken_over(small_house: House) -> None:
    files = {"model.safetensors": weights(model()), "a.json": b"{}"}
    await small_house.push("m", "v1.0.0", files)
    blobs = small_house.control.data / "blobs"
    async with small_house.control.database.write() as connection:
        for gone in ("stored_files", "stored_blocks", "packs WHERE state = 'sealed'"):
            await connection.exec_driver_sql(f"DELETE FROM {gone}")
    for pack in packs_of(small_house):
        pack.unlink()
    for data in files.values():
        path = blobs / whole_key(sha256_digest(data))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    async def pulled() -> dict[str, bytes]:
        return {p: (await small_house.admin.get(f"/api/v1/models/m/versions/v1.0.0/files/{p}")).content for p in files}

    assert await pulled() == files
    assert (await checked(small_house))[0] == []
    neighbour = {**files, "a.json": b"[]"}
    await small_house.push("m", "v1.0.1", neighbour)
    keeper = Storekeeper(small_house.control)
    while await keeper.adopt_next():
        pass
    assert not [path for path in (blobs / "sha256").rglob("*") if path.is_file()]
    assert await pulled() == files
    assert await fetched(small_house, "m", "v1.0.1") == neighbour
    assert (await checked(small_house))[0] == []


async def test_a_block_that_rotted_gives_no_file_another_digest(small_house: House) -> None:
    files = {"model.safetensors": weights(model())}
    pushing = Pushing(small_house, "m", "v1.0.0", files)
    assert (await pushing.put(await pushing.begin())).status_code == 201
    small_house.control.binder.forget(pushing.id)  # as after a restart
    [pack] = packs_of(small_house)
    data = bytearray(pack.read_bytes())
    data[-5] ^= 1
    pack.write_bytes(data)
    refused = await pushing.commit()
    assert refused.json()["error"]["code"] == "damaged"
    assert len((await checked(small_house, forget=True))[0]) == 1
    version = await push(small_house, "m", "v1.0.0", files)
    assert version["files"][0]["digest"] == sha256_digest(files["model.safetensors"])


async def test_the_same_blocks_sent_again_take_no_room(small_house: House) -> None:
    pushing = Pushing(small_house, "m", "v1.0.0", {"x.txt": random.Random(1).randbytes(1 << 20)})
    wanted = await pushing.begin()
    for _ in range(4):
        assert (await pushing.put(wanted)).status_code == 201
    assert [pack.stat().st_size for pack in packs_of(small_house)] == [1 << 20]
    assert (await pushing.commit()).status_code == 200


async def test_a_push_that_is_cut_otherwise_later_can_be_ended(small_house: House) -> None:
    data = random.Random(2).randbytes(1000)
    pushing = Pushing(small_house, "m", "v1.0.0", {"x.txt": data})
    entry = pushing.body["files"]["x.txt"]
    entry["digest"] = sha256_digest(data)
    entry["blocks"], cut_well = [[block_name(part), len(part)] for part in (data[:9], data[9:])], entry["blocks"]
    assert len(await pushing.begin()) == 2
    entry["blocks"] = cut_well
    assert (await pushing.put(await pushing.begin())).status_code == 201
    assert (await pushing.commit()).json()["files"][0]["digest"] == entry["digest"]


async def test_sweeps_at_once_stand_in_no_others_way(small_house: House) -> None:
    kept, gone = (random.Random(3).randbytes(size) for size in (200_000, 1_000_000))
    for number in range(4):
        files = {"a.txt": kept + bytes([number]), "b.txt": gone + bytes([number])}
        await push(small_house, "m", f"v1.{number}.0", files)
        await push(small_house, "m", f"v2.{number}.0", {"a.txt": files["a.txt"]})
        await small_house.post(f"/models/m/versions/v1.{number}.0/state", {"state": "deleted"}, status=200)
        await asyncio.gather(*(swept(small_house) for _ in range(4)))
        assert (await fetched(small_house, "m", f"v2.{number}.0"))["a.txt"] == files["a.txt"]
    assert (await checked(small_house))[0] == []


async def test_a_whole_file_that_is_needed_while_the_sweep_runs_stays(
    small_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"of older days"
    path = small_house.control.data / "blobs" / whole_key(sha256_digest(data))
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    before = sweeping._sweep_objects

    async def pushed_meanwhile(control: Control, found: sweeping.Swept) -> None:
        await before(control, found)
        await small_house.push("m", "v1.0.0", {"x.txt": data})

    monkeypatch.setattr(sweeping, "_sweep_objects", pushed_meanwhile)
    await swept(small_house)
    assert (await small_house.admin.get("/api/v1/models/m/versions/v1.0.0/files/x.txt")).content == data


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.soak)])
async def test_of_many_pushes_at_once_one_wins_a_label_and_numbers_have_no_gap(house: House, count: int) -> None:
    async def one(number: int, label: str) -> int:
        pushing = Pushing(house, "m", label, {"a.json": f"{number}".encode()}, idempotency_key=f"k{number}")
        begun = await house.admin.post(pushing.path, json=pushing.body)
        if begun.status_code != 201:
            return begun.status_code
        pushing.id = begun.json()["id"]
        wanted = [Block(*block) for block in begun.json()["missing_blocks"]]
        if wanted:
            assert (await pushing.put(wanted)).status_code == 201
        return (await pushing.commit()).status_code

    statuses = await asyncio.gather(*(one(i, "v1.0.0" if i % 4 == 0 else f"run{i}") for i in range(count)))
    contested = statuses[::4]
    assert sorted(contested) == [200] + [409] * (count // 4 - 1)
    assert [s for i, s in enumerate(statuses) if i % 4] == [200] * (count * 3 // 4)
    found = await house.get("/models/m/versions")
    assert [v["number"] for v in found] == list(range(count * 3 // 4 + 1, 0, -1))
    assert len({v["label"] for v in found}) == count * 3 // 4 + 1
    winner = next(i for i in range(0, count, 4) if statuses[i] == 200)
    got = await house.admin.get("/api/v1/models/m/versions/v1.0.0/files/a.json")
    assert hashlib.sha256(got.content).digest() == hashlib.sha256(f"{winner}".encode()).digest()


class FarPacks(ObjectPacks):
    """Packs in memory, as far away as a bucket; counts the bytes that are asked for."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(), "memory")
        self.asked = 0

    def read(self, identity: str, start: int, length: int) -> bytes:
        self.asked += length
        return super().read(identity, start, length)


async def test_a_build_takes_from_those_before_it_what_is_the_same(small_house: House) -> None:
    control = small_house.control
    far = control.blobs.packs = FarPacks()
    builds = Builds(control)
    data = random.Random(3).randbytes(9 << 20)
    changed = data[: 8 << 20] + b"!" + data[(8 << 20) + 1 :]
    folders = []
    for label, binary in (("v1.0.0", data), ("v1.0.1", changed)):
        await push(small_house, "m", label, {"openvino-int8/openvino_model.bin": binary, "openvino-int8/a.json": b"{}"})
        state = await small_house.publisher.state()
        [build] = [one for one in state.builds.values() if one.key.label == label]
        before = far.asked
        folders.append(await builds.folder(build))
        moved = far.asked - before
        assert (folders[-1] / "openvino_model.bin").read_bytes() == binary
        assert moved == len(binary) + 2 if label == "v1.0.0" else moved == 1 << 20
    (folders[0] / "openvino_model.bin").write_bytes(bytes(len(data)))  # what the index says is not believed
    [again] = [one for one in (await small_house.publisher.state()).builds.values() if one.key.label == "v1.0.0"]
    assert await Builds(control).folder(again) == folders[0]
    assert (folders[0] / "openvino_model.bin").read_bytes() == data
