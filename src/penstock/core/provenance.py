"""What control hands to an engine with a build: the manifest that names its bytes, and who vouches for that."""

import msgspec


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Of one build.

    Attributes:
        version: NAME:LABEL, for people.
        manifest: the version's, as it was committed: its SHA-256 is what was signed.
        folder: of the version, that the build is.
        envelopes: signatures, as DSSE has them.
        blocks: by the digest of a file, its blocks: BLAKE3 (64 digits) and size each; for telling where a damage lies.
    """

    version: str
    manifest: str
    folder: str
    envelopes: tuple[str, ...] = ()
    blocks: dict[str, tuple[tuple[str, int], ...]] = {}
