"""The table of jobs that make builds; on the same metadata as `schema`."""

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, ForeignKeyConstraint, Index, String, Table, Text

from penstock.store.schema import DIGEST, NAME, metadata

build_jobs = Table(
    "build_jobs",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("model", NAME, nullable=False),
    Column("label", String(128), nullable=False),
    Column("digest", DIGEST, nullable=False),  # of the version
    Column("engine", String(32), nullable=False),
    Column("precision", String(16), nullable=False),
    Column("measure", Boolean, nullable=False),  # whether it is measured once it is there
    Column("state", String(16), nullable=False),  # queued, running, storing, done, failed, cancelled
    Column("detail", Text, nullable=False),  # why it failed
    Column("steps", JSON, nullable=False),  # what it did, and when each began: [{"step", "at"}]
    Column("converter", Text, nullable=False),  # what made it, with versions; "" until it is known
    Column("build", String(71), nullable=False),  # digest; "" until it is there
    Column("size", BigInteger, nullable=False),
    Column("holder", String(160), nullable=False),
    Column("lease_until", Double, nullable=False),
    Column("requested_by", NAME, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    ForeignKeyConstraint(["model", "label"], ["versions.model", "versions.label"]),
    Index(None, "state"),
    Index(None, "model", "label"),
)
