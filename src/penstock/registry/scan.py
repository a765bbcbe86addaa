"""What a scan looks at in a version's files: pickles, headers of safetensors, the licence. Pure: heads of files in, findings out."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.core.errors import BadRequest
from penstock.registry.card import Card
from penstock.registry.files import is_pickle, refuse_pickle_name
from penstock.registry.manifest import Manifest

HEAD_BYTES = 512
MOST_HEADER = 100_000_000  # as the format's own reader has it
MOST_TENSORS = 100_000
_LICENCES = frozenset({"license", "licence", "license.txt", "license.md", "licence.txt", "licence.md", "copying"})
# Bytes of one element.
_WIDTHS = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is wrong with a file; "" for the version as a whole."""

    path: str
    words: str


def scan_version(
    manifest: Manifest, heads: Mapping[str, bytes], card: Card | None, metadata: Mapping[str, Any]
) -> list[Finding]:
    """What is wrong with a version.

    Args:
        manifest: its files.
        heads: the first bytes of each file: `HEAD_BYTES`, of .safetensors the whole header.
        card: its model card, if it has one.
        metadata: what was pushed with it.
    """
    found: list[Finding] = []
    for path, entry in sorted(manifest.files.items()):
        head = heads.get(path, b"")
        try:
            refuse_pickle_name(path)
        except BadRequest:
            found.append(Finding(path=path, words="by its name it is a pickle, which runs code when it is loaded"))
            continue
        if path.lower().endswith(".safetensors"):
            wrong = header_error(head, entry.size)
            if wrong is not None:
                found.append(Finding(path=path, words=wrong))
        elif is_pickle(head):
            found.append(Finding(path=path, words="it is a pickle, or an archive that may hold one"))
    if not licence_of(manifest, card, metadata):
        found.append(Finding(path="", words="no licence is told, by the card, the metadata or a file LICENSE"))
    return found


def licence_of(manifest: Manifest, card: Card | None, metadata: Mapping[str, Any]) -> str:
    """The licence that a version tells, or the file that holds it; "" for none."""
    told = (
        (card.metadata.get("license") if card is not None else None)
        or metadata.get("license")
        or metadata.get("licence")
    )
    if told:
        return str(told)
    return next((path for path in sorted(manifest.files) if path.rpartition("/")[2].lower() in _LICENCES), "")


def header_length(start: bytes) -> int:
    """How many bytes a safetensors file's header takes, its 8 of length included, by its first 8; at most `MOST_HEADER` and 8."""
    return 8 + min(int.from_bytes(start[:8], "little"), MOST_HEADER)


def header_error(head: bytes, size: int) -> str | None:
    """What is wrong with a safetensors file of `size` bytes that begins with `head`; None: nothing.

    As the format says (huggingface/safetensors, README, "Format"): tensors lie side by side from the header's end to the file's, without gaps
    or overlaps, each as long as its shape and type say.
    """
    if len(head) < 8:
        return "it has no header"
    length = int.from_bytes(head[:8], "little")
    if length > MOST_HEADER or 8 + length > size:
        return f"its header claims {length} bytes"
    if len(head) < 8 + length:
        return "its header is cut off"
    try:
        told = json.loads(head[8 : 8 + length], object_pairs_hook=_once)
        if not isinstance(told, dict):
            return "its header is no JSON object"
        spans = sorted(_span(name, entry) for name, entry in told.items() if name != "__metadata__")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        return f"its header cannot be read: {error}"
    if len(spans) > MOST_TENSORS:
        return f"it claims {len(spans)} tensors"
    at = 0
    for begin, end, name in spans:
        if begin != at:
            return f"the tensor {name!r} {'overlaps another' if begin < at else 'leaves a gap'}"
        at = end
    if 8 + length + at != size:
        return f"its tensors end at byte {8 + length + at} of {size}"
    return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands there twice")
    return made


def _span(name: str, entry: Any) -> tuple[int, int, str]:
    begin, end = entry["data_offsets"]
    width = _WIDTHS.get(entry["dtype"])
    if width is None:
        raise ValueError(f"{name!r} is of the unknown type {str(entry['dtype'])[:32]!r}")
    count = 1
    for side in entry["shape"]:
        if type(side) is not int or side < 0:
            raise ValueError(f"{name!r} has no shape")
        count *= side
    if type(begin) is not int or type(end) is not int or begin < 0 or end - begin != count * width:
        raise ValueError(f"{name!r} is not as long as its shape says")
    return begin, end, name
