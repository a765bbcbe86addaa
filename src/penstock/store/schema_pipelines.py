"""The tables of pipelines and of what others are told: pipelines with their steps, the outbox, and webhooks' deliveries; on the same metadata as `schema`."""

from sqlalchemy import JSON, BigInteger, Column, Double, ForeignKey, Index, String, Table, Text

from penstock.store.schema import DIGEST, NAME, metadata

# From files to production. The plan is never changed; where it is stands in its steps.
pipelines = Table(
    "pipelines",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("model", NAME, nullable=False),
    Column("label", String(128), nullable=False),
    Column("digest", DIGEST, nullable=False),  # of the version that it is for, pushed or not
    Column("plan", JSON, nullable=False),
    Column("state", String(16), nullable=False),  # running, done, refused, failed, cancelled
    Column("detail", Text, nullable=False),  # why it ended
    Column("principal", NAME, nullable=False),  # who began it
    Column("key", String(40), nullable=False),  # as whom its changes are made
    Column("created_at", Double, nullable=False),
    Column("ended_at", Double),
    Index(None, "model", "label"),
    Index(None, "state"),
)

pipeline_steps = Table(
    "pipeline_steps",
    metadata,
    Column("pipeline", String(40), ForeignKey("pipelines.id"), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),  # push, scan, build, gate, promote, canary
    Column("environment", NAME, nullable=False),  # "": none
    Column("state", String(16), nullable=False),  # waiting, running, done, refused, failed, cancelled
    Column("detail", Text, nullable=False),  # where it stands, or how it ended, in words
    Column("outcomes", JSON, nullable=False),  # of a gate step: each gate with its figures
    Column("evaluations", JSON, nullable=False),  # ids: {"asked": those that it asked for, "made": those that were new}
    Column("build", String(40), nullable=False),  # the job that it had made a build; "": none
    Column("revision", String(40), nullable=False),  # that it made; "": none
    Column("canary", NAME, nullable=False),  # that it began; "": none
    Column("asks", BigInteger, nullable=False),
    Column("turn", BigInteger, nullable=False),  # of the compare-and-swap: one more with each deed
    Column("waits_since", Double),  # for people
    Column("started_at", Double),
    Column("ended_at", Double),
)

# What others are told: an audit event's twin, written in its transaction.
outbox = Table(
    "outbox",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),  # that of the audit event
    Column("id", String(40), nullable=False),  # of the message, the same for every webhook and attempt
    Column("at", Double, nullable=False),
    Column("type", String(64), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("model", NAME, nullable=False),  # "": none
    Column("body", Text, nullable=False),  # the very text that is sent
    Index(None, "at"),
)

# How far each webhook has been told, and what came of it. A row goes with its webhook.
webhook_counts = Table(
    "webhook_counts",
    metadata,
    Column("webhook", NAME, primary_key=True),
    Column("position", BigInteger, nullable=False),  # sequence up to which deliveries were made of events
    Column("delivered", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),  # attempts
    Column("died", BigInteger, nullable=False),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("webhook", NAME, primary_key=True),
    Column("sequence", BigInteger, ForeignKey("outbox.sequence"), primary_key=True, autoincrement=False),
    Column("model", NAME, nullable=False),
    Column("state", String(16), nullable=False),  # waiting, delivered, dead
    Column("attempts", BigInteger, nullable=False),
    Column("first_at", Double),  # of the first attempt
    Column("next_at", Double, nullable=False),
    Column("status", BigInteger, nullable=False),  # of the newest answer; 0: none
    Column("error", Text, nullable=False),
    Column("ended_at", Double),
    Index(None, "webhook", "state", "model"),
)
