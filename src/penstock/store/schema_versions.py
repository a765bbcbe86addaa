"""The tables of what is told about versions: aliases, cards, lineage, data sets; on the same metadata as `schema`."""

from sqlalchemy import JSON, BigInteger, Column, Double, ForeignKeyConstraint, Index, Integer, String, Table, Text

from penstock.store.schema import DIGEST, NAME, metadata

# Names that move: by compare-and-swap on `generation`.
aliases = Table(
    "aliases",
    metadata,
    Column("model", NAME, primary_key=True),
    Column("name", NAME, primary_key=True),
    Column("label", String(128), nullable=False),
    Column("digest", DIGEST, nullable=False),
    Column("previous", String(128)),  # the label that it meant before
    Column("generation", BigInteger, nullable=False),
    Column("moved_at", Double, nullable=False),
    Column("moved_by", NAME, nullable=False),
    ForeignKeyConstraint(["model", "label"], ["versions.model", "versions.label"]),
)

# Every move of an alias; rows stay when it is removed.
alias_moves = Table(
    "alias_moves",
    metadata,
    Column("model", NAME, primary_key=True),
    Column("name", NAME, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("label", String(128)),  # none: it was removed
    Column("digest", DIGEST),
    Column("previous", String(128)),  # the label that it meant before
    Column("reason", Text, nullable=False, default=""),
    Column("principal", NAME, nullable=False),
    Column("at", Double, nullable=False),
)

# A card's revisions; the newest is also in `versions.card`.
card_revisions = Table(
    "card_revisions",
    metadata,
    Column("model", NAME, primary_key=True),
    Column("label", String(128), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("principal", NAME, nullable=False),
    Column("at", Double, nullable=False),
    ForeignKeyConstraint(["model", "label"], ["versions.model", "versions.label"]),
)

# What a version was made of and measured on, resolved when it was committed.
lineage_edges = Table(
    "lineage_edges",
    metadata,
    Column("model", NAME, primary_key=True),
    Column("label", String(128), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("relation", String(32), nullable=False),
    Column("kind", String(16), nullable=False),  # version, dataset, external
    Column("target", String(512), nullable=False),  # NAME:LABEL, a data set's name, or what stands elsewhere
    Column("target_digest", String(71), nullable=False, default=""),
    ForeignKeyConstraint(["model", "label"], ["versions.model", "versions.label"]),
    Index(None, "target"),
    Index(None, "target_digest"),
)

datasets = Table(
    "datasets",
    metadata,
    Column("name", NAME, primary_key=True),
    Column("number", BigInteger, nullable=False),  # of the newest revision
    Column("digest", DIGEST, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("origin", String(16), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

# Every revision of a data set's record, also of names that were removed.
dataset_revisions = Table(
    "dataset_revisions",
    metadata,
    Column("name", NAME, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", DIGEST, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("principal", NAME, nullable=False),
    Column("at", Double, nullable=False),
    Index(None, "digest"),
)

# Tests of readiness that somebody did by hand: what came of them, signed. The newest of a test counts.
readiness_answers = Table(
    "readiness_answers",
    metadata,
    Column("digest", DIGEST, primary_key=True),  # of the version
    Column("test", String(32), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
    Column("principal", NAME, nullable=False),
    Column("signer", NAME, nullable=False),
    Column("envelope", Text, nullable=False),  # DSSE over the digest of the answer
    Column("at", Double, nullable=False),
)
