"""The tables that ingest fills (exchanges, observations, usage) and those of experiments; on the same metadata as `schema`.

All counts that merge are whole numbers. JSON columns hold text, so integers of any size survive both databases.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
)

from penstock.store.schema import NAME, metadata

# How far each source has been taken in: a gateway worker's journal, by its name.
ingest_offsets = Table(
    "ingest_offsets",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("segment", BigInteger, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
)

# The index of exchanges: what is filtered by and attributed to; `record` is the whole Exchange in msgpack.
exchanges = Table(
    "exchanges",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("sequence", BigInteger, nullable=False),  # of ingest: replay follows it
    Column("at", Double, nullable=False),
    Column("tenant", NAME, nullable=False),
    Column("route", NAME, nullable=False),
    Column("experiment", NAME, nullable=False),
    Column("arm", NAME, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("unit", Text, nullable=False),  # TENANT/UNIT
    Column("version", String(255), nullable=False),
    Column("digest", String(71), nullable=False),
    Column("status", Integer, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("told", Integer, nullable=False),  # bits: success 1, rating 2, reports 4, conversion 8 have been counted
    Column("record", LargeBinary, nullable=False),
    Index(None, "sequence", unique=True),
    Index(None, "at"),
)

# Feedback, events, reports and preferences; (tenant, id) is the caller's idempotency id, kept for ever.
observations = Table(
    "observations",
    metadata,
    Column("tenant", NAME, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("received", Double, nullable=False),
    Column("request", Text, nullable=False),
    # attributed, kept (about no exchange), pending (its exchange is not there yet), unattributed (it never came), foreign (another
    # tenant's exchange)
    Column("state", String(16), nullable=False),
    Column("record", LargeBinary, nullable=False),
    Index(None, "request"),
    Index(None, "sequence"),
    Index("ix_observations_state_received", "state", "received"),
)

# By request that feedback or a report with a text is about: whose it is, so that the text is forgotten with its author.
told_texts = Table(
    "told_texts",
    metadata,
    Column("tenant", NAME, primary_key=True),
    Column("request", String(64), primary_key=True),
    Column("subject", Text),  # as `journal.keystore.subject_of` names it; NULL: the request is not there yet
    Column("received", Double, nullable=False),  # the first text, Unix seconds
    Index(None, "tenant", "subject"),
)

# What was used, by minute; histograms are {bucket: count} of nanoseconds (`experiments.statistics.bucket_of`).
usage_minute = Table(
    "usage_minute",
    metadata,
    Column("minute", BigInteger, primary_key=True, autoincrement=False),  # since 1970
    Column("tenant", NAME, primary_key=True),
    Column("route", NAME, primary_key=True),
    Column("version", String(255), primary_key=True),
    Column("arm", String(200), primary_key=True),  # EXPERIMENT/ARM
    Column("requests", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("refused", BigInteger, nullable=False),
    Column("cancelled", BigInteger, nullable=False),
    Column("cached", BigInteger, nullable=False),  # answered from the response cache
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("cost_nanousd", BigInteger, nullable=False),
    Column("latency", JSON, nullable=False),
    Column("first_token", JSON, nullable=False),
)

# Records that were not counted, by reason (`control.ingest_counts.REASONS`).
ingest_counts = Table(
    "ingest_counts",
    metadata,
    Column("reason", String(32), primary_key=True),
    Column("count", BigInteger, nullable=False),
)

experiments = Table(
    "experiments",
    metadata,
    Column("name", NAME, primary_key=True),
    Column("spec", JSON, nullable=False),
    Column("route", NAME, nullable=False),
    Column("state", String(16), nullable=False),  # draft, running, paused, decided, archived
    Column("origin", String(16), nullable=False),  # api, apply
    Column("resolved", JSON, nullable=False),  # by arm: the pool, and the build if it is one
    Column("ranges", JSON, nullable=False),  # by arm: of the hash, in the current epoch
    Column("contexts", JSON),  # of a bandit with contexts: by context and arm, the shares of the current epoch
    Column(
        "dose", Double
    ),  # of a shadow or an interleaved experiment: the share that a second model answers; null: as registered
    Column("epoch", BigInteger, nullable=False),  # 0: not started
    Column("step", Integer, nullable=False),
    Column(
        "planned", BigInteger
    ),  # units an arm, as worked out at the start; null: not started, or before this was kept
    Column("serving", NAME, nullable=False),  # the arm that has all traffic while paused or decided; "": none
    Column("expires_at", Double),
    Column("verdict", JSON),
    Column("judged_to", BigInteger),  # the ingest sequence up to which the verdict knew
    Column("counted_to", BigInteger),  # of an archived one: the ingest sequence up to which it was counted
    Column("decision", JSON),  # {"reasons", "by", "at"}
    Column("created_at", Double, nullable=False),
    Column("created_by", NAME, nullable=False),
    Column("started_at", Double),
    Column("decided_at", Double),
    Index(None, "state"),
)

# A stretch of time with the same shares: statistics are never pooled across two of them.
experiment_epochs = Table(
    "experiment_epochs",
    metadata,
    Column("experiment", NAME, primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("shares", JSON, nullable=False),
    Column("contexts", JSON),  # of a bandit with contexts: by context and arm
    Column("started_at", Double, nullable=False),
)

experiment_statistics = Table(
    "experiment_statistics",
    metadata,
    Column("experiment", NAME, primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("arm", NAME, primary_key=True),
    Column("metric", String(64), primary_key=True),
    Column("moments", Text),  # JSON array of six whole numbers
    Column("histogram", Text),  # JSON object
)

# The same by stratum, with the sums of the covariate, for experiments that have either.
experiment_layers = Table(
    "experiment_layers",
    metadata,
    Column("experiment", NAME, primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("stratum", String(128), primary_key=True),
    Column("arm", NAME, primary_key=True),
    Column("metric", String(64), primary_key=True),
    Column("sums", Text, nullable=False),  # experiments.counted.Layer in JSON
)

# The planned looks that have been taken.
experiment_looks = Table(
    "experiment_looks",
    metadata,
    Column("experiment", NAME, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("record", Text, nullable=False),  # experiments.counted.Look in JSON
)

# The covariate: what units did before the experiment started; who is not here did nothing.
experiment_past = Table(
    "experiment_past",
    metadata,
    Column("experiment", NAME, primary_key=True),
    Column("unit", Text, primary_key=True),  # TENANT/UNIT
    Column("value", BigInteger, nullable=False),
)

# What each unit did: the clusters of the variance.
experiment_units = Table(
    "experiment_units",
    metadata,
    Column("experiment", NAME, primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("unit", Text, primary_key=True),  # TENANT/UNIT
    Column("record", LargeBinary, nullable=False),  # experiments.fold.UnitRecord in msgpack
)

experiment_guardrails = Table(
    "experiment_guardrails",
    metadata,
    Column("experiment", NAME, primary_key=True),
    Column("metric", String(64), primary_key=True),
    Column("record", Text, nullable=False),  # experiments.guardrails.Guardrail in JSON
    Column("tripped", Boolean, nullable=False),
)

# The estimates over time, for the chart.
experiment_points = Table(
    "experiment_points",
    metadata,
    Column("experiment", NAME, primary_key=True),
    Column("metric", String(64), primary_key=True),
    Column("arm", NAME, primary_key=True),
    Column("at", Double, primary_key=True),
    Column("n", BigInteger, nullable=False),
    Column("value", Double),
    Column("estimate", Double),
    Column("lower", Double),
    Column("upper", Double),
)
