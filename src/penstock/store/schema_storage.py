"""The tables of storage: what files are made of and where each block lies; on the same metadata as `schema`.

A row of `stored_blocks` stands for bytes that are on the disk: it is written after them and removed before them. `touched_at` says
when somebody last relied on the row; the sweep takes nothing that was touched since it began.
"""

from sqlalchemy import BigInteger, Column, Double, ForeignKey, Index, Integer, LargeBinary, String, Table, Text

from penstock.store.schema import DIGEST, NAME, metadata

BLOCK_NAME = String(64)
PACK_ID = String(32)

# Files whose SHA-256 was seen to be that of their blocks.
stored_files = Table(
    "stored_files",
    metadata,
    Column("digest", DIGEST, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("blocks", LargeBinary, nullable=False),  # registry.blocks.pack_recipe
    Column("seal", BLOCK_NAME, nullable=False),  # the BLAKE3 of `blocks`
    Column("touched_at", Double, nullable=False),
    Column("thinned_at", Double),  # when it was last looked for a base that its blocks may be deltas of
    Index(None, "seal"),
)

# Objects that hold blocks, one after the other. One that is `open` is being written.
packs = Table(
    "packs",
    metadata,
    Column("id", PACK_ID, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("state", String(8), nullable=False),  # open, sealed
    Column("created_at", Double, nullable=False),
)

stored_blocks = Table(
    "stored_blocks",
    metadata,
    Column("name", BLOCK_NAME, primary_key=True),
    Column("size", Integer, nullable=False),  # of the block itself
    Column("pack", PACK_ID, ForeignKey("packs.id"), nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("length", Integer, nullable=False),  # as it is stored
    Column("base", BLOCK_NAME),  # of a delta: the block that it differs from, which is no delta
    Column("width", Integer, nullable=False),  # of a delta: bytes of an element; else 0
    Column("touched_at", Double, nullable=False),
    Index(None, "pack"),
    Index(None, "base"),
)

# The blocks of which an open upload's files will be made. A file whose SHA-256 was not announced stands under its seal.
upload_files = Table(
    "upload_files",
    metadata,
    Column("upload", String(40), primary_key=True),
    Column("digest", DIGEST, primary_key=True),
    Column("seal", BLOCK_NAME, nullable=False),
    Column("blocks", LargeBinary, nullable=False),
)

# Versions that somebody is fetching: the sweep leaves them alone until then.
pulls = Table(
    "pulls",
    metadata,
    Column("digest", DIGEST, primary_key=True),
    Column("until", Double, nullable=False),
)

# Versions that are kept whatever becomes of them.
pins = Table(
    "pins",
    metadata,
    Column("model", NAME, primary_key=True),
    Column("label", String(128), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("principal", NAME, nullable=False),
    Column("at", Double, nullable=False),
)
