"""What a scan looks at in a version's files: pickles, headers of safetensors, the licence. Pure: heads of files in, findings out."""

from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.core.errors import BadRequest
from penstock.registry.builds import code_of
from penstock.registry.card import Card
from penstock.registry.files import is_pickle, refuse_pickle_name
from penstock.registry.layout import read_header
from penstock.registry.manifest import Manifest
from penstock.registry.pickles import Pickles

HEAD_BYTES = 512
_LICENCES = frozenset({"license", "licence", "license.txt", "license.md", "licence.txt", "licence.md", "copying"})


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was found in a file; "" for the version as a whole. `wrong`: it fails the scan; else it is told for people to know."""

    path: str
    words: str
    wrong: bool = True


def scan_version(
    manifest: Manifest,
    heads: Mapping[str, bytes],
    card: Card | None,
    metadata: Mapping[str, Any],
    pickles: Mapping[str, Pickles] | None = None,
) -> list[Finding]:
    """What is wrong with a version, and what else people should know of it.

    Args:
        manifest: its files.
        heads: the first bytes of each file: `HEAD_BYTES`, of .safetensors the whole header.
        card: its model card, if it has one.
        metadata: what was pushed with it.
        pickles: of files that PyTorch keeps tensors in, what was found in them.
    """
    found: list[Finding] = []
    for path, entry in sorted(manifest.files.items()):
        head = heads.get(path, b"")
        scanned = (pickles or {}).get(path)
        if scanned is not None:
            found.append(_of_pickle(path, scanned))
            continue
        try:
            refuse_pickle_name(path)
        except BadRequest:
            found.append(Finding(path=path, words="by its name it is a pickle, which runs code when it is loaded"))
            continue
        if path.lower().endswith(".safetensors"):
            try:
                read_header(head, entry.size, path)
            except BadRequest as error:
                found.append(Finding(path=path, words=error.message))
        elif is_pickle(head):
            found.append(Finding(path=path, words="it is a pickle, or an archive that may hold one"))
    code = code_of(manifest)
    if code is not None:
        found.append(Finding(path=code, words="code of its own, which engines run if it is signed", wrong=False))
    if not licence_of(manifest, card, metadata):
        found.append(Finding(path="", words="no licence is told, by the card, the metadata or a file LICENSE"))
    return found


def _of_pickle(path: str, scanned: Pickles) -> Finding:
    if scanned.wrong:
        return Finding(path=path, words=f"a pickle: {'; '.join(scanned.wrong)}")
    return Finding(path=path, words=f"a pickle of tensors alone, which takes {', '.join(scanned.globals)}", wrong=False)


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
