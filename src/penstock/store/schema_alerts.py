"""The table of alerts that Alertmanager has told of; on the same metadata as `schema`."""

from sqlalchemy import JSON, BigInteger, Column, Double, Index, String, Table, Text

from penstock.store.schema import NAME, metadata

# One row for each time that an alert fired. Of one fingerprint at most one row is firing.
alerts = Table(
    "alerts",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("fingerprint", String(64), nullable=False),  # Alertmanager's, of the labels
    Column("name", String(255), nullable=False),
    Column("severity", String(32), nullable=False),
    Column("tenant", NAME, nullable=False),  # the label, or "": it concerns the installation
    Column("state", String(16), nullable=False),  # firing, resolved
    Column("summary", Text, nullable=False),
    Column("runbook", Text, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("starts_at", Double, nullable=False),
    Column("ends_at", Double),
    Column("heard_at", Double, nullable=False),  # of the last notice
    Column("notices", BigInteger, nullable=False),
    Index(None, "fingerprint", "sequence"),
    Index(None, "state", "sequence"),
)
