"""What differs between two versions, read from their files: weights piece by piece, small files whole."""

import asyncio
import difflib
import json
from collections import OrderedDict
from typing import Any

import msgspec

from penstock.control.context import Control
from penstock.control.storage.ranges import Stretch, covering
from penstock.core.errors import BadRequest
from penstock.registry.diff import (
    Difference,
    Suggestion,
    TensorChange,
    Tensors,
    compare_metrics,
    compare_tokenizers,
    differences,
    suggest,
)
from penstock.registry.layout import LENGTH_BYTES, MAX_HEADER, Tensor, read_header
from penstock.registry.manifest import Manifest, read_manifest
from penstock.registry.processing import CODE
from penstock.registry.processing import FILE as PROCESSING
from penstock.registry.tensors import Sums
from penstock.store.block_index import StoredFile

_NUMBERS = 1 << 20  # compared at a time
_MAX_SMALL = 64 << 20  # of a tokenizer or a configuration
_MOST_LINES = 200
_MOST_COMPARED = 4000  # lines of each text that differ: aligning more takes minutes, and a template has some hundreds
_MOST_KEPT = 64
_OLDER = ("config.json", "generation_config.json")


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer."""

    difference: Difference
    suggestion: Suggestion


class Differ:
    """Compares versions one pair after the other, and remembers the last ones: a digest's files never change.

    What can be edited (cards, and metadata of versions with one digest) is part of the key.
    """

    def __init__(self, control: Control) -> None:
        self._control = control
        self._turn = asyncio.Lock()
        self._kept: OrderedDict[tuple[str, ...], Diff] = OrderedDict()

    async def diff(self, before: Any, after: Any) -> Diff:
        """What differs between two rows of `versions`.

        Raises:
            NotFound: if bytes of one are not stored any more.
            Damaged: if they are not what was written.
        """
        key = tuple(part for row in (before, after) for part in (row.model, row.label, row.digest, row.card))
        async with self._turn:
            if key not in self._kept:
                self._kept[key] = await self._made(before, after)
                if len(self._kept) > _MOST_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]

    async def _made(self, before: Any, after: Any) -> Diff:
        old, new = (read_manifest(row.manifest, row.digest) for row in (before, after))
        folder, other = _source(old), _source(new)
        configs = [
            differences(await self._json(old, f"{folder}{name}"), await self._json(new, f"{other}{name}"))
            for name in _OLDER
        ]
        facts = [{k: v for k, v in row.metadata.items() if k != "metrics"} for row in (before, after)]
        paths = [
            {path: entry.digest for path, entry in manifest.files.items() if path != "README.md"}
            for manifest in (old, new)
        ]
        found = Difference(
            tensors=await self._tensors(old, new, folder, other),
            tokenizer=compare_tokenizers(
                await self._json(old, f"{folder}tokenizer.json"), await self._json(new, f"{other}tokenizer.json")
            ),
            template=await asyncio.to_thread(
                _lines, await self._template(old, folder), await self._template(new, other)
            ),
            config=configs[0],
            generation=configs[1],
            metadata=differences(facts[0], facts[1]),
            metrics=compare_metrics(before.metadata.get("metrics") or {}, after.metadata.get("metrics") or {}),
            processing=differences(await self._processing(old), await self._processing(new)),
            card=await asyncio.to_thread(_lines, before.card, after.card),
            files_added=tuple(sorted(paths[1].keys() - paths[0].keys())),
            files_removed=tuple(sorted(paths[0].keys() - paths[1].keys())),
            files_changed=tuple(sorted(p for p in paths[0].keys() & paths[1].keys() if paths[0][p] != paths[1][p])),
        )
        return Diff(difference=found, suggestion=suggest(found))

    # -- small files -----------------------------------------------------------------------------------------------------

    async def _text(self, manifest: Manifest, path: str) -> str:
        entry = manifest.files.get(path)
        if entry is None or entry.size > _MAX_SMALL:
            return ""
        return (await self._control.blobs.get(entry.digest)).decode(errors="replace")

    async def _json(self, manifest: Manifest, path: str) -> dict[str, Any]:
        try:
            value = json.loads(await self._text(manifest, path) or "{}")
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    async def _processing(self, manifest: Manifest) -> dict[str, Any]:
        """The steps; those that call the version's own code with its digest, so that other code is another step."""
        told = await self._json(manifest, PROCESSING)
        code = manifest.files.get(CODE)
        for where in ("input", "output") if code is not None else ():
            steps = told.get(where)
            for step in steps if isinstance(steps, list) else ():
                if isinstance(step, dict) and step.get("do") == "python" and code is not None:
                    step["code"] = code.digest
        return told

    async def _template(self, manifest: Manifest, folder: str) -> str:
        text = await self._text(manifest, f"{folder}chat_template.jinja")
        if text:
            return text
        told = (await self._json(manifest, f"{folder}tokenizer_config.json")).get("chat_template")
        return told if isinstance(told, str) else json.dumps(told, indent=1) if told else ""

    # -- weights ---------------------------------------------------------------------------------------------------------

    async def _tensors(self, old: Manifest, new: Manifest, folder: str, other: str) -> Tensors:
        before, after = await self._places(old, folder), await self._places(new, other)
        same = 0
        changed: list[TensorChange] = []
        total, subtracted = Sums(), False
        for name in sorted(before.keys() | after.keys()):
            a, b = before.get(name), after.get(name)
            if a is None or b is None:
                changed.append(_one_sided(name, a, b))
                continue
            sums = await self._compare(a, b)
            if sums is None:
                same += 1
                continue
            if sums.known:
                subtracted = True
                total.add(sums)
            changed.append(
                TensorChange(
                    name=name,
                    change="shape"
                    if a.tensor.shape != b.tensor.shape
                    else "dtype"
                    if a.tensor.dtype != b.tensor.dtype
                    else "values",
                    shape=a.tensor.shape,
                    new_shape=b.tensor.shape,
                    dtype=a.tensor.dtype,
                    new_dtype=b.tensor.dtype,
                    relative=sums.relative,
                    cosine=sums.cosine,
                )
            )
        return Tensors(
            same=same,
            changed=tuple(changed),
            relative=total.relative if subtracted else None,
            cosine=total.cosine if subtracted else None,
        )

    async def _places(self, manifest: Manifest, folder: str) -> dict[str, "_Placed"]:
        found: dict[str, _Placed] = {}
        for path, entry in manifest.files.items():
            if not path.startswith(folder) or not path.endswith(".safetensors"):
                continue
            blobs = self._control.blobs
            head = await blobs.head(entry.digest, LENGTH_BYTES)
            length = min(int.from_bytes(head, "little"), MAX_HEADER) + LENGTH_BYTES
            try:
                tensors = read_header(await blobs.head(entry.digest, length), entry.size, path)
            except BadRequest:
                continue  # it was taken before headers were checked
            file = await blobs.file(entry.digest)
            for tensor in tensors:
                found[tensor.name] = _Placed(entry.digest, file, tensor)
        return found

    async def _compare(self, a: "_Placed", b: "_Placed") -> Sums | None:
        """Sums over two tensors of one name; None if they are the same byte for byte. Of those of other shapes nothing is known."""
        if a.tensor.shape != b.tensor.shape:
            return Sums(equal=False, known=False)
        if a.tensor.dtype == b.tensor.dtype and a.named() == b.named() is not None:
            return None
        sums = Sums()
        first, second = (
            Stretch(self._control.blobs, one.digest, one.file, one.tensor.start, one.tensor.end) for one in (a, b)
        )
        try:
            left = a.tensor.end - a.tensor.start
            while left > 0:
                mine = await first.take(_NUMBERS * a.tensor.width)
                theirs = await second.take(_NUMBERS * b.tensor.width)
                await asyncio.to_thread(sums.feed, mine, theirs, a.tensor.dtype, b.tensor.dtype)
                left -= len(mine)
        finally:
            await first.close()
            await second.close()
        return None if sums.equal and a.tensor.dtype == b.tensor.dtype else sums


class _Placed(msgspec.Struct, frozen=True):
    """A tensor and the file that holds it."""

    digest: str
    file: StoredFile | None
    tensor: Tensor

    def named(self) -> tuple[str, ...] | None:
        """The names of the blocks that hold exactly this tensor; None if it shares one with others."""
        if self.file is None:
            return None
        blocks, begin = covering(self.file, self.tensor.start, self.tensor.end)
        whole = (
            begin == self.tensor.start and sum(block.size for block in blocks) == self.tensor.end - self.tensor.start
        )
        return tuple(block.name for block in blocks) if whole else None


def _one_sided(name: str, a: _Placed | None, b: _Placed | None) -> TensorChange:
    if b is None:
        assert a is not None
        return TensorChange(name=name, change="removed", shape=a.tensor.shape, dtype=a.tensor.dtype)
    return TensorChange(name=name, change="added", new_shape=b.tensor.shape, new_dtype=b.tensor.dtype)


def _source(manifest: Manifest) -> str:
    """The folder, with its slash, whose weights a version is judged by: the one with safetensors nearest to the top."""
    folders = {path.rpartition("/")[0] for path in manifest.files if path.endswith(".safetensors")}
    if not folders:
        folders = {path.rpartition("/")[0] for path in manifest.files if path.endswith("tokenizer.json")}
    best = min(folders, key=lambda folder: (folder.count("/"), folder), default="")
    return f"{best}/" if best else ""


def _lines(before: str, after: str) -> tuple[str, ...]:
    """A unified diff, at most some hundred lines of it."""
    if before == after:
        return ()
    old, new = before.splitlines(), after.splitlines()
    begin = next(
        (at for at, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), min(len(old), len(new))
    )
    differ = max(len(old), len(new)) - begin
    if differ > _MOST_COMPARED:
        return ("--- before", "+++ after", f"... {differ} lines from line {begin + 1} on, more than are compared")
    found = list(difflib.unified_diff(old, new, "before", "after", lineterm="", n=1))
    return (
        *found[:_MOST_LINES],
        *((f"... {len(found) - _MOST_LINES} lines more",) if len(found) > _MOST_LINES else ()),
    )
