"""A file's SHA-256 is that of its bytes, in whatever order its blocks come and whatever is forgotten of them."""

import random
from functools import partial
from pathlib import Path

import pytest

from penstock.control.storage import binder as binding
from penstock.control.storage.binder import Binder
from penstock.core.digests import sha256_digest
from penstock.core.errors import Conflict
from penstock.registry.blocks import Block, Recipe, block_name, pack_recipe, seal_of
from penstock.store.blobs import Blobs, open_blobs
from penstock.store.sql import Database


@pytest.fixture
def blobs(tmp_path: Path, sqlite: Database) -> Blobs:
    return open_blobs("", tmp_path / "blobs", sqlite)


class Source:
    """Bytes that come in pieces of odd sizes."""

    def __init__(self, data: bytes, draw: random.Random) -> None:
        self._data = data
        self._draw = draw
        self.left = len(data)

    def readinto(self, view: memoryview) -> int:
        count = min(self.left, len(view), self._draw.randrange(1, 5000))
        begin = len(self._data) - self.left
        view[:count] = self._data[begin : begin + count]
        self.left -= count
        return count


def files_of(draw: random.Random) -> tuple[dict[str, bytes], dict[str, Recipe], dict[str, bytes]]:
    """Files by their seals, their recipes, and the bytes of the blocks; some blocks stand in several places."""
    shared = [draw.randbytes(draw.randrange(1, 4000)) for _ in range(4)]
    files: dict[str, bytes] = {}
    recipes: dict[str, Recipe] = {}
    blocks: dict[str, bytes] = {}
    for _ in range(3):
        parts = [
            draw.choice(shared) if draw.random() < 0.3 else draw.randbytes(draw.randrange(1, 9000)) for _ in range(12)
        ]
        recipe = tuple(Block(block_name(part), len(part)) for part in parts)
        seal = seal_of(pack_recipe(recipe))
        files[seal], recipes[seal] = b"".join(parts), recipe
        blocks |= {block.name: part for block, part in zip(recipe, parts, strict=True)}
    return files, recipes, blocks


async def put(
    blobs: Blobs, binder: Binder, upload: str, data: dict[str, bytes], draw: random.Random, share: float = 0.5
) -> None:
    """Store blocks; by a chance of `share` past the loop."""
    recipe = tuple(Block(name, len(part)) for name, part in data.items())
    intake = await blobs.intake(recipe, partial(binder.came, upload))
    whole = b"".join(data.values())
    if draw.random() < share:
        intake.receive(Source(whole, draw))
    else:
        for at in range(0, len(whole), 777):
            await intake.feed(whole[at : at + 777])
    await intake.finish()
    binder.stored(upload, data)


@pytest.mark.parametrize("seed", range(6))
async def test_blocks_may_come_in_any_order(blobs: Blobs, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(seed)
    monkeypatch.setattr(binding, "_MEMORY", draw.choice([0, 20_000, 1 << 20]))
    files, recipes, blocks = files_of(draw)
    binder = Binder(blobs)
    names = list(blocks)
    draw.shuffle(names)
    before, during = names[: len(names) // 4], names[len(names) // 4 :]
    await put(blobs, binder, "other", {name: blocks[name] for name in before}, draw)
    binder.follow("up", recipes, during)
    binder.follow("idle", {}, ())
    while during:
        count = draw.randrange(1, 6)
        part, during = during[:count], during[count:]
        if during:
            with pytest.raises(Conflict):
                await binder.digests("up", recipes)
            binder.follow("up", recipes, [*part, *during])
        await put(blobs, binder, "up", {name: blocks[name] for name in part}, draw)
        if draw.random() < 0.2:
            binder.forget("up")  # as after a restart
            binder.follow("up", recipes, during)
    found = await binder.digests("up", recipes)
    assert found == {seal: sha256_digest(data) for seal, data in files.items()}
    binder.forget("up")
    pool = blobs.buffers
    assert not pool.scarce
    assert pool.used == 0  # none is held by anybody


async def test_an_upload_that_stands_still_gives_way_to_others(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "_MEMORY", 10_000)
    draw = random.Random(1)
    binder = Binder(blobs)
    parts = {letter: [draw.randbytes(4000) for _ in range(3)] for letter in "ab"}
    recipes = {}
    for letter, blocks in parts.items():
        recipe = tuple(Block(block_name(data), len(data)) for data in blocks)
        recipes[letter] = {seal_of(pack_recipe(recipe)): recipe}
        binder.follow(letter, recipes[letter], [block.name for block in recipe])
    for letter, blocks in parts.items():  # all but the first, which the others wait for
        await put(blobs, binder, letter, {block_name(data): data for data in blocks[1:]}, draw, share=1)
    binder.forget("a")
    assert blobs.buffers.used == 1  # it is those of the later one that wait in memory
    binder.forget("b")
    assert blobs.buffers.used == 0
    for letter, blocks in parts.items():
        await put(blobs, binder, letter, {block_name(blocks[0]): blocks[0]}, draw)
        assert list((await binder.digests(letter, recipes[letter])).values()) == [sha256_digest(b"".join(blocks))]
