"""The tables of gates: suites, evaluations and their items, approvals, judgements, signers and signatures; on the same metadata as `schema`."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    String,
    Table,
    Text,
)

from penstock.store.schema import DIGEST, NAME, metadata

# Suites: the very lines that the digest names. A name's newest is what NAME means.
suites = Table(
    "suites",
    metadata,
    Column("name", NAME, primary_key=True),
    Column("digest", DIGEST, primary_key=True),
    Column("number", BigInteger, nullable=False),  # 1, 2, 3 ... within the name
    Column("lines", Text, nullable=False),
    Column("items", BigInteger, nullable=False),
    Column("description", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("created_by", NAME, nullable=False),
)

# Evaluations: what is measured of one build of one version. What it is bound to is never changed.
evaluations = Table(
    "evaluations",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("kind", String(16), nullable=False),  # scan, smoke, suite
    Column("model", NAME, nullable=False),
    Column("label", String(128), nullable=False),
    Column("digest", DIGEST, nullable=False),  # of the version
    Column("precision", String(16), nullable=False),
    Column("build", DIGEST, nullable=False),  # of the build; of a scan that of the version
    Column("suite", NAME, nullable=False),  # its name; of others than suites ""
    Column("suite_digest", String(71), nullable=False),
    Column("settings", JSON, nullable=False),  # seed, prompts, judge: how it is measured
    Column("settings_hash", DIGEST, nullable=False),
    Column("engine_digest", String(71), nullable=False),  # of the engine that measures; "" until one has taken it
    Column("state", String(16), nullable=False),  # queued, running, done, failed, cancelled
    Column("detail", Text, nullable=False),  # what it found, or why it failed
    Column("passed", Boolean, nullable=False),  # of a scan or a smoke test
    Column("total", BigInteger, nullable=False),  # items
    Column("done", BigInteger, nullable=False),
    Column("result", JSON, nullable=False),  # figures, once it is done
    Column("holder", String(160), nullable=False),  # the evaluator that has it
    Column("lease_until", Double, nullable=False),
    Column("requested_by", NAME, nullable=False),
    Column("replay_of", String(40)),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Index(None, "digest", "kind"),
    Index(None, "state"),
)

evaluation_items = Table(
    "evaluation_items",
    metadata,
    Column("evaluation", String(40), ForeignKey("evaluations.id"), primary_key=True),
    Column("item", NAME, primary_key=True),
    Column("number", BigInteger, nullable=False),  # its place in the suite
    Column("correct", Boolean),
    Column("value", Double),
    Column("answer", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("seconds", Double, nullable=False),
)

approvals = Table(
    "approvals",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("environment", NAME, nullable=False),
    Column("model", NAME, nullable=False),
    Column("label", String(128), nullable=False),
    Column("digest", DIGEST, nullable=False),  # what is approved: the label is for people
    Column("policy_hash", DIGEST, nullable=False),
    Column("results_hash", DIGEST, nullable=False),
    Column("principal", NAME, nullable=False),  # its name then
    Column("person", String(40), nullable=False, server_default=""),  # its id
    Column("reason", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("withdrawn_at", Double),
    Index(None, "environment", "model", "digest"),
)

# What the gates said when a revision was made.
judgements = Table(
    "judgements",
    metadata,
    Column("revision", String(40), ForeignKey("revisions.id"), primary_key=True),
    Column("policy_hash", DIGEST, nullable=False),
    Column("outcomes", JSON, nullable=False),
    Column("overridden_by", NAME, nullable=False),  # "": they were passed
    Column("reason", Text, nullable=False),
    Column("at", Double, nullable=False),
)

signers = Table(
    "signers",
    metadata,
    Column("name", NAME, primary_key=True),
    Column("public", String(64), nullable=False),  # 32 bytes, hexadecimal
    Column(
        "sealed", Text, nullable=False
    ),  # the private half under the master key; "": it is elsewhere, the public half is trusted
    Column("owner", String(40), nullable=False, server_default=""),  # id of the principal that signs with it
    Column("roles", JSON, nullable=False, server_default='["admin", "operator"]'),  # whose holders do, too
    Column("created_at", Double, nullable=False),
    Column("created_by", NAME, nullable=False),
    Column("revoked_at", Double),
    Column("revoked_by", NAME),
    Column("revoked_reason", Text),
)

signatures = Table(
    "signatures",
    metadata,
    Column("digest", DIGEST, primary_key=True),  # of the version
    Column("public", String(64), primary_key=True),
    Column("envelope", Text, nullable=False),  # DSSE, as JSON
    Column("at", Double, nullable=False),
    Column("principal", NAME, nullable=False),  # who had it signed, or brought it
)
