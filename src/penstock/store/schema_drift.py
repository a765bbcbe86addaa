"""The tables of drift, and of what alerts made control do; on the same metadata as `schema`."""

from sqlalchemy import JSON, BigInteger, Column, Double, Index, LargeBinary, String, Table, Text

from penstock.store.schema import NAME, metadata

# What is watched: a model (a version, or the route of servers that were adopted), and an arm of an experiment ("": none).
drift_groups = Table(
    "drift_groups",
    metadata,
    Column("model", String(255), primary_key=True),  # NAME:LABEL, or a route's name
    Column("arm", String(200), primary_key=True),  # EXPERIMENT/ARM
    Column("since", Double, nullable=False),  # when its reference began
    Column("last_at", Double, nullable=False),  # of the newest exchange
    Column("ended_at", Double),  # when another version took its place
    Column("alarms", JSON, nullable=False),  # experiments.drift.Alarm each
    Column("record", LargeBinary, nullable=False),  # experiments.drift.Group in msgpack
    Index(None, "last_at"),
)

# The daily two-sample tests, one row for each signal of a group.
drift_days = Table(
    "drift_days",
    metadata,
    Column("model", String(255), primary_key=True),
    Column("arm", String(200), primary_key=True),
    Column("signal", String(32), primary_key=True),
    Column("day", BigInteger, primary_key=True, autoincrement=False),  # since 1970, UTC
    Column("n", BigInteger, nullable=False),
    Column("psi", Double, nullable=False),
    Column(
        "distance", Double, nullable=False
    ),  # Kolmogorov and Smirnov's; of what has no order the largest difference of two shares
    Column("p", Double, nullable=False),
    Index(None, "day"),
)

# What control did, or why it did nothing, for each alert that an environment's policy names; the sequence is the alert's.
alert_actions = Table(
    "alert_actions",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("alert", String(255), nullable=False),
    Column("environment", NAME, primary_key=True),
    Column("model", NAME, primary_key=True),
    Column("label", String(128), nullable=False),  # of the version that was live
    Column("action", String(16), nullable=False),  # rollback, hold, none
    Column("reason", Text, nullable=False),
    Column("revision", String(40)),  # that was made
    Index(None, "environment", "model", "at"),
)
