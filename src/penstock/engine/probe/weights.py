"""Tensors of safetensors files, one at a time and in float32 (github.com/huggingface/safetensors, "Format"): no torch is needed."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.core.errors import Damaged, NotFound

Array = NDArray[np.float32]
_TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
_MOST_HEADER = 100_000_000  # as the format says


class Weights:
    """The tensors of one model's folder, by name. Files are mapped, not read: what is not asked for costs nothing."""

    def __init__(self, folder: Path) -> None:
        """Reads what there is.

        Raises:
            NotFound: if there is no such file.
            Damaged: if one is no safetensors file.
        """
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise NotFound(f"{folder} holds no .safetensors file.")
        self._where: dict[str, tuple[Path, dict[str, Any], int]] = {}
        for file in files:
            for name, entry, start in _header(file):
                self._where[name] = (file, entry, start)

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def get(self, name: str) -> Array:
        """The tensor `name`.

        Raises:
            Damaged: if there is none, or it is of a type that is not known here.
        """
        if name not in self._where:
            raise Damaged(f"The weights hold no tensor {name!r}.")
        file, entry, start = self._where[name]
        kind = _TYPES.get(entry["dtype"])
        if kind is None:
            raise Damaged(f"The tensor {name!r} is of type {entry['dtype']}; {', '.join(_TYPES)} can be read.")
        shape = tuple(entry["shape"])
        offset = start + entry["data_offsets"][0]
        try:
            raw = np.memmap(file, kind, "r", offset, shape)
        except (OSError, ValueError) as error:
            raise Damaged(f"The tensor {name!r} does not lie in {file}: {error}.") from None
        if entry["dtype"] == "BF16":
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.astype(np.float32)


def _header(file: Path) -> list[tuple[str, dict[str, Any], int]]:
    with file.open("rb") as opened:
        head = opened.read(8)
        size = struct.unpack("<Q", head)[0] if len(head) == 8 else _MOST_HEADER + 1
        text = opened.read(size) if size <= _MOST_HEADER else b""
    try:
        found = json.loads(text)
        return [(n, found[n], 8 + size) for n in found if n != "__metadata__" and len(found[n]["data_offsets"]) == 2]
    except (ValueError, TypeError, KeyError):
        raise Damaged(f"{file} is no safetensors file.") from None
