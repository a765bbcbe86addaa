"""The tables of delivery beside the deployment record: blocks, canaries, and which gateway workers are watched; on the same metadata as `schema`."""

from sqlalchemy import JSON, Column, Double, ForeignKey, Index, String, Table, Text

from penstock.store.schema import DIGEST, NAME, metadata

# Versions that may not be deployed in an environment; a row stays when it is cleared.
blocks = Table(
    "blocks",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("environment", NAME, nullable=False),
    Column("model", NAME, nullable=False),
    Column("label", String(128), nullable=False),
    Column("digest", DIGEST, nullable=False),  # what is blocked: the label is for people
    Column("reason", Text, nullable=False),
    Column("principal", NAME, nullable=False),
    Column("at", Double, nullable=False),
    Column("cleared_at", Double),
    Column("cleared_by", NAME),
    Column("cleared_reason", Text),
    Index(None, "environment", "model"),
)

# Canaries of deployments: each is the revision that it tries out and the experiment that splits the traffic.
canaries = Table(
    "canaries",
    metadata,
    Column("experiment", NAME, primary_key=True),
    Column("environment", NAME, nullable=False),
    Column("model", NAME, nullable=False),
    Column("revision", String(40), ForeignKey("revisions.id"), nullable=False),  # what is tried out
    Column("incumbent", String(40), ForeignKey("revisions.id"), nullable=False),  # what was live when it began
    Column("state", String(16), nullable=False),  # running, promoted, rolled_back, aborted
    Column("plan", JSON, nullable=False),
    Column("words", JSON, nullable=False),  # why it ended, sentence by sentence
    Column("ended_at", Double),
    Column("ended_by", NAME),
    Index(None, "environment", "model", "state"),
)

# By journal, which is by gateway worker: when it last reported, and up to when its journal has been taken in (`delivery.watch`). Several control
# processes hear of different workers; what each has heard is put together here while a canary runs.
watched = Table(
    "watched",
    metadata,
    Column("journal", String(64), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("worker", String(64), nullable=False),
    Column("reported_at", Double, nullable=False),
    Column("heard_at", Double, nullable=False),
)
