"""The tables of the control plane. A change here goes with a migration in `migrations/versions`; a test compares the two.

Times are Unix seconds. JSON columns hold what their writers validated; a manifest is kept as the very text that its digest names.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

DIGEST = String(71)  # sha256: and 64 digits
NAME = String(96)

sequences = Table(
    "sequences",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

# Tenant, Pool, Route, Policy, Environment: a name and a spec that the kind's model has validated.
resources = Table(
    "resources",
    metadata,
    Column("kind", String(32), primary_key=True),
    Column("name", NAME, primary_key=True),
    Column("spec", JSON, nullable=False),
    Column("generation", BigInteger, nullable=False),  # of the Snapshot that first had this spec
    Column("origin", String(16), nullable=False),  # api, apply, system: `apply --prune` removes only what `apply` made
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

principals = Table(
    "principals",
    metadata,
    Column("name", NAME, primary_key=True),
    Column("id", String(40), nullable=False, server_default=""),  # whose word it is, whatever the name
    Column("roles", JSON, nullable=False),
    Column("tenant", NAME),
    Column("origin", String(16), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("disabled_at", Double),
    Index("ix_principals_id", "id", unique=True),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("hash", String(64), nullable=False, unique=True),  # SHA-256 of the text
    Column("name", NAME, nullable=False),
    Column("tenant", NAME),  # none: for the control API alone, gateways never hear of it
    Column("principal", NAME, ForeignKey("principals.name")),  # none: the key is its own principal
    Column("roles", JSON, nullable=False),
    Column("models", JSON),  # routes it may call; none: all of its tenant's
    Column("limits", JSON, nullable=False),
    Column("model_limits", JSON, nullable=False, server_default="{}"),  # by route
    Column("origin", String(16), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    Index(None, "tenant"),
)

models = Table(
    "models",
    metadata,
    Column("name", NAME, primary_key=True),
    Column("description", Text, nullable=False, default=""),
    Column("created_at", Double, nullable=False),
    Column("created_by", NAME, nullable=False),
)

# A push that has begun: what it will hold, and whether it was committed.
uploads = Table(
    "uploads",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("idempotency_key", String(128), nullable=False),
    Column("principal", NAME, nullable=False),
    Column("model", NAME, nullable=False),
    Column("label", String(128), nullable=False),
    Column("digest", DIGEST, nullable=False),
    Column("manifest", Text, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("size", BigInteger, nullable=False, server_default="0"),  # bytes of all files
    Column("state", String(16), nullable=False),  # open, committed, refused
    Column("created_at", Double, nullable=False),
    Column("lease_until", Double, nullable=False, server_default="0"),  # its blocks are kept so long, if it is open
    UniqueConstraint("principal", "idempotency_key"),
)

versions = Table(
    "versions",
    metadata,
    Column("model", NAME, ForeignKey("models.name"), primary_key=True),
    Column("label", String(128), primary_key=True),
    Column("digest", DIGEST, nullable=False),  # of the manifest
    Column("scheme", String(16), nullable=False),
    Column("number", BigInteger, nullable=False),  # 1, 2, 3 ... within the model, in order of commit
    Column("state", String(16), nullable=False),
    Column("manifest", Text, nullable=False),  # canonical JSON
    Column("metadata", JSON, nullable=False),
    Column("card", Text, nullable=False),
    Column("size", BigInteger, nullable=False),  # bytes of all files
    Column("created_at", Double, nullable=False),
    Column("created_by", NAME, nullable=False),
    Column("pushed_by", String(40), nullable=False, server_default=""),  # id of the principal; "": the key had none
    Column("pushed_with", String(40), nullable=False, server_default=""),  # id of the key
    UniqueConstraint("model", "number"),
    Index(None, "digest"),
)

# What an engine loads of a version: the digest of the sub-manifest of one of its folders.
builds = Table(
    "builds",
    metadata,
    Column("model", NAME, primary_key=True),
    Column("label", String(128), primary_key=True),
    Column("precision", String(16), primary_key=True),
    Column("engine", String(32), nullable=False),
    Column("folder", String(255), nullable=False),  # of the version, e.g. openvino-int8
    Column("digest", DIGEST, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    # Of a build that was made here, not brought along: its files as FOLDER/NAME with what belongs to every build, canonical JSON; what signs it signs this.
    Column("manifest", Text),
    Column("job", String(40)),  # that made it
    ForeignKeyConstraint(["model", "label"], ["versions.model", "versions.label"]),
    Index(None, "digest"),
)

# The deployment record: every change of what an environment runs of a model is a row, and none is ever changed but in its state.
revisions = Table(
    "revisions",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("environment", NAME, nullable=False),
    Column("model", NAME, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("action", String(16), nullable=False),  # promote, rollback
    Column("label", String(128), nullable=False),
    Column("digest", DIGEST, nullable=False),  # of the version
    Column("config", JSON, nullable=False),  # precision, replicas, ...: with `label` the whole state
    Column("state", String(16), nullable=False),  # pending, live, failed, superseded
    Column("detail", Text, nullable=False, default=""),  # why it failed
    Column("reason", Text, nullable=False, default=""),
    Column("principal", NAME, nullable=False),
    Column("previous", String(40)),  # id of the revision it replaced
    Column("source", String(40)),  # of a rollback: id of the revision whose state it copies
    Column("created_at", Double, nullable=False),
    Column("live_at", Double),
    UniqueConstraint("environment", "model", "number"),
    ForeignKeyConstraint(["model", "label"], ["versions.model", "versions.label"]),
)

# The pointers: moved by compare-and-swap on `generation`.
deployments = Table(
    "deployments",
    metadata,
    Column("environment", NAME, primary_key=True),
    Column("model", NAME, primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("wanted", String(40), ForeignKey("revisions.id"), nullable=False),
    Column("live", String(40), ForeignKey("revisions.id")),  # what gateways serve; behind `wanted` while that warms up
    Column("warm", String(40), ForeignKey("revisions.id")),  # what was live before: its replicas are kept running
)

# Replicas that the reconcile loop has seen ready: what Snapshots point at.
replicas = Table(
    "replicas",
    metadata,
    Column("id", String(160), primary_key=True),
    Column("pool", String(255), nullable=False),
    Column("url", String(255), nullable=False),
    Column("ready_at", Double, nullable=False),
    Index(None, "pool"),
)

# Who leads: the one control process that runs the loops.
leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("expires_at", Double, nullable=False),
)

audit_events = Table(
    "audit_events",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("principal", NAME, nullable=False),
    Column("key", String(40), nullable=False, default=""),
    Column("action", String(64), nullable=False),  # noun.verb: version.commit, deployment.promote
    Column("subject", String(255), nullable=False),
    Column("tenant", NAME),  # that it is about, or whose key did it; none: the installation's
    Column("detail", JSON, nullable=False),
    Column("system", Boolean, nullable=False, default=False),
    Index(None, "subject"),
    Index(None, "tenant"),
)
