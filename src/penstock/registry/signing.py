"""Signatures of versions: Ed25519 over a statement about the manifest's digest, in an envelope that other tools read.

Envelope and what is signed: DSSE protocol v1 (github.com/secure-systems-lab/dsse). Payload: in-toto Statement v1, subject: the version.
"""

import base64
import binascii
import hashlib
import json
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from penstock.core.errors import BadRequest, Damaged

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://penstock.dev/version/v1"
_MOST_BYTES = 1 << 16


class Vouched(msgspec.Struct, frozen=True, kw_only=True):
    """What an envelope says: the version's digest and name, and when it was signed (Unix seconds)."""

    digest: str
    name: str
    at: float


def public_of(seed: bytes) -> str:
    """The public half of the key whose private half is the 32 bytes `seed`, hexadecimal."""
    raw = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    return raw.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw).hex()


def check_public(text: str) -> str:
    """`text`, if it is a public key: 64 hexadecimal digits.

    Raises:
        BadRequest: if not.
    """
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))
    except ValueError:
        raise BadRequest(f"{text[:80]!r} is no Ed25519 public key: 64 hexadecimal digits.", param="public") from None
    return text.lower()


def key_id(public: str) -> str:
    """How an envelope names a key: the SHA-256 of its 32 bytes."""
    return hashlib.sha256(bytes.fromhex(public)).hexdigest()


def sign_version(seed: bytes, *, digest: str, name: str, at: float) -> str:
    """The envelope, as JSON, in which the key vouches for the version.

    Args:
        seed: the private half, 32 bytes.
        digest: of the version.
        name: NAME:LABEL, for people: what is vouched for is the digest.
        at: Unix seconds.
    """
    statement = {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}],
        "predicateType": _PREDICATE,
        "predicate": {"signedAt": at},
    }
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
    key = Ed25519PrivateKey.from_private_bytes(seed)
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [
            {"keyid": key_id(public_of(seed)), "sig": base64.b64encode(key.sign(signed_bytes(payload))).decode()}
        ],
    }
    return json.dumps(envelope, sort_keys=True, separators=(",", ":"))


def signed_bytes(payload: bytes) -> bytes:
    """What the signature is over: the payload's type and length are under it too (DSSE's pre-authentication encoding)."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def read_envelope(envelope: str, public: str) -> Vouched:
    """What the key `public` vouches for in `envelope`.

    Raises:
        Damaged: if it is no such envelope, or none of its signatures is by that key and over these bytes.
    """
    try:
        payload, found = _opened(envelope)
        vouched = _vouched(json.loads(payload))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise Damaged(f"A signature cannot be read: {error}.", code="bad_signature") from None
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    for signature in found:
        try:
            key.verify(signature, signed_bytes(payload))
        except InvalidSignature:
            continue
        return vouched
    raise Damaged(f"The signature of {vouched.name} is not by the key {public[:12]}.", code="bad_signature")


def _opened(envelope: str) -> tuple[bytes, list[bytes]]:
    """The payload of an envelope and its signatures; raises what reading other things raises."""
    if len(envelope) > _MOST_BYTES:
        raise ValueError("it is too long")
    told = json.loads(envelope)
    if told["payloadType"] != PAYLOAD_TYPE:
        raise ValueError("it holds another type of payload")
    payload = base64.b64decode(told["payload"], validate=True)
    return payload, [base64.b64decode(one["sig"], validate=True) for one in told["signatures"]]


def _vouched(statement: Any) -> Vouched:
    [subject] = statement["subject"]
    if statement["_type"] != _STATEMENT or statement["predicateType"] != _PREDICATE:
        raise ValueError("it states something else")
    return Vouched(
        digest="sha256:" + subject["digest"]["sha256"],
        name=str(subject["name"]),
        at=float(statement["predicate"]["signedAt"]),
    )
