"""Pushing and fetching by blocks, as a client does, and weights to push."""

import json
from typing import Any

import httpx
import numpy as np

from penstock.registry.blocks import Block, Cutter, batch_head, batches, block_name
from tests.control.house import House


def bf16(values: np.ndarray) -> bytes:
    """Numbers as BF16."""
    return bytes((values.astype(np.float32).view(np.uint32) >> 16).astype("<u2").tobytes())


def weights(tensors: dict[str, np.ndarray]) -> bytes:
    """A safetensors file of BF16 tensors."""
    header: dict[str, Any] = {}
    parts, at = [], 0
    for name, values in tensors.items():
        data = bf16(values)
        header[name] = {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [at, at + len(data)]}
        parts.append(data)
        at += len(data)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(parts)


def model(seed: int = 0, layers: int = 4, side: int = 128) -> dict[str, np.ndarray]:
    """Tensors of a small model."""
    random = np.random.default_rng(seed)
    return {f"layers.{i}.weight": random.normal(0, 0.02, (side, side)) for i in range(layers)}


def cut(data: bytes) -> list[tuple[Block, bytes]]:
    """The blocks of a file."""
    cutter = Cutter(len(data))
    return [(Block(block_name(part), len(part)), part) for part in (*cutter.feed(data), *cutter.end())]


class Pushing:
    """A push by blocks."""

    def __init__(self, house: House, name: str, label: str, files: dict[str, bytes], **more: Any) -> None:
        self.house = house
        self.path = f"/api/v1/models/{name}/uploads"
        self.parts = {path: cut(data) for path, data in files.items()}
        self.bytes = {block.name: data for part in self.parts.values() for block, data in part}
        self.body = {
            "label": label,
            "files": {
                path: {"size": len(files[path]), "blocks": [[b.name, b.size] for b, _ in part]}
                for path, part in self.parts.items()
            },
            "idempotency_key": f"{name}:{label}",
            **more,
        }
        self.id = ""
        self.moved = 0

    async def begin(self) -> list[Block]:
        response = await self.house.admin.post(self.path, json=self.body)
        assert response.status_code == 201, response.text
        self.id = response.json()["id"]
        return [Block(*block) for block in response.json()["missing_blocks"]]

    async def put(self, blocks: list[Block], spoil: bytes | None = None) -> httpx.Response:
        body = batch_head(blocks) + (spoil if spoil is not None else b"".join(self.bytes[b.name] for b in blocks))
        self.moved += sum(block.size for block in blocks)
        return await self.house.admin.post(f"/api/v1/blobs/blocks?upload={self.id}", content=body)

    async def commit(self) -> httpx.Response:
        return await self.house.admin.post(f"/api/v1/uploads/{self.id}/commit")

    async def push(self) -> Any:
        for part in batches(await self.begin()):
            response = await self.put(part)
            assert response.status_code == 201, response.text
        response = await self.commit()
        assert response.status_code == 200, response.text
        return response.json()


async def push(house: House, name: str, label: str, files: dict[str, bytes], **more: Any) -> Any:
    """What the commit answers."""
    return await Pushing(house, name, label, files, **more).push()


async def fetched(house: House, name: str, label: str) -> dict[str, bytes]:
    """The files of a version, put together from its blocks, each checked."""
    listing = (await house.get(f"/models/{name}/versions/{label}/blocks"))["files"]
    blocks = {block[0]: block[1] for entry in listing.values() for block in entry["blocks"]}
    response = await house.admin.post(f"/api/v1/models/{name}/versions/{label}/blocks", json={"blocks": list(blocks)})
    assert response.status_code == 200, response.text
    found, at = {}, 0
    for block, size in blocks.items():
        found[block] = response.content[at : at + size]
        assert block_name(found[block]) == block
        at += size
    return {path: b"".join(found[block[0]] for block in entry["blocks"]) for path, entry in listing.items()}


async def checked(house: House, *, forget: bool = False) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What fsck tells: damages, and the end."""
    response = await house.admin.post("/api/v1/storage/fsck", json={"forget": forget})
    assert response.status_code == 200, response.text
    words = [json.loads(line) for line in response.text.splitlines()]
    assert words[-1]["type"] == "done"
    return [word for word in words if word["type"] == "damage"], words[-1]
