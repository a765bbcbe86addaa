"""A version as an OCI image layout, by the CNCF ModelPack specification (github.com/modelpack/model-spec, v1): its documents, made and read.

Every file of the version is a raw layer, named by its own SHA-256, with its path as an annotation. Three more layers hold the version's manifest, byte for
byte, what suites said of it, and who signed it; tools that do not know their media types pass them over.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from penstock.core.digests import is_digest, sha256_digest
from penstock.core.errors import BadRequest
from penstock.core.references import check_name
from penstock.registry.files import MAX_FILES, Role
from penstock.registry.manifest import Manifest, make_manifest, manifest_digest, read_manifest
from penstock.registry.schemes import parse_label

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
CONFIG = "application/vnd.cncf.model.config.v1+json"
VERSION = "application/vnd.penstock.version.manifest.v1+json"
EVALUATIONS = "application/vnd.penstock.evaluations.v1+json"
SIGNATURES = "application/vnd.penstock.signatures.v1+json"
FILEPATH = "org.cncf.model.filepath"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
MOST_DOCUMENT = 8 << 20  # bytes of index, manifest, configuration and of each layer of ours
MOST_MEMBERS = MAX_FILES + 64
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_RAW: dict[Role, str] = {
    "weights": "application/vnd.cncf.model.weight.v1.raw",
    "tokenizer": "application/vnd.cncf.model.weight.config.v1.raw",
    "config": "application/vnd.cncf.model.weight.config.v1.raw",
    "code": "application/vnd.cncf.model.code.v1.raw",
    "card": "application/vnd.cncf.model.doc.v1.raw",
    "other": "application/vnd.cncf.model.weight.config.v1.raw",
}


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What goes with a version's files.

    Attributes:
        model, label: its name.
        manifest: as it was committed: the text that its digest names.
        metadata: as it was pushed.
        created_at: Unix seconds, of the push.
        licence: "": none is told.
        evaluations: what suites said: suite, its digest, figures.
        signatures: public key and envelope each.
    """

    model: str
    label: str
    manifest: bytes
    metadata: dict[str, Any] = {}
    created_at: float = 0.0
    licence: str = ""
    evaluations: list[dict[str, Any]] = []
    signatures: list[dict[str, str]] = []


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """The documents of a layout, in the order in which they stand before the files: path in the archive -> bytes."""

    documents: dict[str, bytes]
    files: dict[str, int]  # path in the archive -> size, of the version's files, each once


def make_layout(told: Told, digest: str, created: str) -> Layout:
    """The layout of the version `digest`; `created` is the time of its push as RFC 3339 has it.

    Raises:
        Damaged: if the manifest is not what the digest names.
    """
    manifest = read_manifest(told.manifest, digest)
    documents: dict[str, bytes] = {}

    def document(body: Any, media: str) -> dict[str, Any]:
        data = body if isinstance(body, bytes) else _json(body)
        documents[_place(sha256_digest(data))] = data
        return {"mediaType": media, "digest": sha256_digest(data), "size": len(data)}

    layers = [
        {
            "mediaType": _RAW[entry.role],
            "digest": entry.digest,
            "size": entry.size,
            "annotations": {FILEPATH: path},
        }
        for path, entry in sorted(manifest.files.items())
    ]
    own = [
        document(told.manifest, VERSION),
        document(told.evaluations, EVALUATIONS),
        document(told.signatures, SIGNATURES),
    ]
    descriptor = {"name": told.model, "version": told.label, "createdAt": created}
    config = {
        "descriptor": descriptor | ({"licenses": [told.licence]} if told.licence else {}),
        "config": {},
        "modelfs": {"type": "layers", "diffIds": [one["digest"] for one in [*layers, *own]]},
    }
    image = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": document(config, CONFIG),
        "layers": [*layers, *own],
        "annotations": {
            "org.opencontainers.image.title": told.model,
            "org.opencontainers.image.version": told.label,
            "org.opencontainers.image.created": created,
            "dev.penstock.version": digest,
            "dev.penstock.metadata": _json(told.metadata).decode(),
        },
    }
    reference = document(image, MANIFEST) | {
        "artifactType": ARTIFACT,
        "annotations": {"org.opencontainers.image.ref.name": told.label},
    }
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [reference]}
    return Layout(
        documents={"oci-layout": LAYOUT, "index.json": _json(index), **documents},
        files={_place(entry.digest): entry.size for _, entry in sorted(manifest.files.items())},
    )


def digest_of_member(name: str) -> str | None:
    """The digest that a member of an archive must have by its name; None for `oci-layout` and `index.json`.

    Raises:
        BadRequest: if a layout has no member of that name.
    """
    plain = name.removeprefix("./")
    match = _BLOB.fullmatch(plain)
    if match is not None:
        return f"sha256:{match[1]}"
    if plain in {"oci-layout", "index.json"}:
        return None
    raise _wrong(f"it holds {name[:200]!r}, which is no part of an OCI image layout")


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """A version as an archive tells it, checked: its name, files by path (digest, size), and what goes with them."""

    digest: str
    told: Told
    manifest: Manifest


def read_layout(blobs: Mapping[str, int], documents: Mapping[str, bytes]) -> Read:
    """The version that an archive holds.

    Args:
        blobs: size of each blob that it has, by digest, the bytes of which were seen to be those of the digest.
        documents: `oci-layout`, `index.json`, and, by digest, the bytes of each blob of at most `MOST_DOCUMENT`.

    Raises:
        BadRequest: if it is no layout, holds no version, lacks a blob, or says things that do not go together.
    """
    layout = _object(documents.get("oci-layout"), "oci-layout")
    if layout.get("imageLayoutVersion") != "1.0.0":
        raise _wrong("it is no OCI image layout of version 1.0.0")
    index = _object(documents.get("index.json"), "index.json")
    references = index.get("manifests")
    if not isinstance(references, list) or len(references) != 1:
        raise _wrong("its index does not name one manifest")
    image = _object(_document(references[0], blobs, documents, "manifest"), "manifest")
    if image.get("artifactType") != ARTIFACT or not isinstance(image.get("layers"), list):
        raise _wrong("its manifest is not of a ModelPack model")
    layers: list[Any] = image["layers"]
    if len(layers) > MOST_MEMBERS:
        raise _wrong(f"it names {len(layers)} layers")
    own = {one.get("mediaType"): one for one in layers if isinstance(one, dict)}
    texts = {kind: _document(own.get(kind), blobs, documents, kind) for kind in (VERSION, EVALUATIONS, SIGNATURES)}
    digest = sha256_digest(texts[VERSION])
    manifest = read_manifest(texts[VERSION], digest)
    _check_files(manifest, digest, layers, blobs)
    config = _object(_document(image.get("config"), blobs, documents, "configuration"), "configuration")
    return Read(digest=digest, told=_told(config, image, texts), manifest=manifest)


def _check_files(manifest: Manifest, digest: str, layers: Sequence[Any], blobs: Mapping[str, int]) -> None:
    """That the manifest is one which this registry would make of these files, and that all of them are there, as the layers say."""
    made = make_manifest({path: (entry.digest, entry.size) for path, entry in manifest.files.items()})
    if manifest_digest(made) != digest:
        raise _wrong("the version's manifest is not one that would be made of its files here")
    for path, entry in manifest.files.items():
        if blobs.get(entry.digest) != entry.size:
            raise _wrong(f"{path!r} is not in it, or not of {entry.size} bytes")
    named = {
        str((one.get("annotations") or {}).get(FILEPATH)): one.get("digest")
        for one in layers
        if isinstance(one, dict) and isinstance(one.get("annotations"), dict) and FILEPATH in one["annotations"]
    }
    if named != {path: entry.digest for path, entry in manifest.files.items()}:
        raise _wrong("its layers are not the files that the version's manifest names")


def _told(config: dict[str, Any], image: dict[str, Any], texts: Mapping[str, bytes]) -> Told:
    try:
        descriptor = config["descriptor"]
        annotations = image.get("annotations") or {}
        metadata = json.loads(annotations.get("dev.penstock.metadata", "{}"))
        told = msgspec.convert(
            {
                "model": check_name(str(descriptor["name"]), "model"),
                "label": parse_label(str(descriptor["version"])).text,
                "manifest": b"",
                "metadata": metadata,
                "evaluations": json.loads(texts[EVALUATIONS]),
                "signatures": json.loads(texts[SIGNATURES]),
            },
            Told,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _wrong(f"what it says of the version cannot be read: {str(error)[:200]}") from None
    if len(told.evaluations) > 1000 or len(told.signatures) > 1000:
        raise _wrong("it holds more evaluations or signatures than a version has")
    return msgspec.structs.replace(told, manifest=texts[VERSION])


def _document(descriptor: Any, blobs: Mapping[str, int], documents: Mapping[str, bytes], what: str) -> bytes:
    if not isinstance(descriptor, dict) or not is_digest(str(descriptor.get("digest"))):
        raise _wrong(f"it names no {what}")
    digest = descriptor["digest"]
    if digest not in documents or descriptor.get("size") != blobs.get(digest):
        raise _wrong(f"its {what} is not in it, larger than {MOST_DOCUMENT >> 20} MiB, or of another size than it says")
    return documents[digest]


def _object(text: bytes | None, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text or b"")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _wrong(f"{what} is missing, or no JSON object")
    return found


def _place(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _wrong(why: str) -> BadRequest:
    return BadRequest(f"The archive is refused: {why}.", code="bad_archive", param="FILE")
