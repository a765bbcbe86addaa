"""Ingest and experiments: exchanges, observations, usage, statistics."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "exchanges",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("tenant", sa.String(length=96), nullable=False),
        sa.Column("route", sa.String(length=96), nullable=False),
        sa.Column("experiment", sa.String(length=96), nullable=False),
        sa.Column("arm", sa.String(length=96), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("version", sa.String(length=255), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("told", sa.Integer(), nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exchanges")),
    )
    op.create_index(op.f("ix_exchanges_at"), "exchanges", ["at"], unique=False)
    op.create_index(op.f("ix_exchanges_sequence"), "exchanges", ["sequence"], unique=True)
    op.create_table(
        "experiment_epochs",
        sa.Column("experiment", sa.String(length=96), nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("shares", sa.JSON(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("experiment", "epoch", name=op.f("pk_experiment_epochs")),
    )
    op.create_table(
        "experiment_guardrails",
        sa.Column("experiment", sa.String(length=96), nullable=False),
        sa.Column("metric", sa.String(length=64), nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.Column("tripped", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("experiment", "metric", name=op.f("pk_experiment_guardrails")),
    )
    op.create_table(
        "experiment_points",
        sa.Column("experiment", sa.String(length=96), nullable=False),
        sa.Column("metric", sa.String(length=64), nullable=False),
        sa.Column("arm", sa.String(length=96), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("estimate", sa.Double(), nullable=True),
        sa.Column("lower", sa.Double(), nullable=True),
        sa.Column("upper", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("experiment", "metric", "arm", "at", name=op.f("pk_experiment_points")),
    )
    op.create_table(
        "experiment_statistics",
        sa.Column("experiment", sa.String(length=96), nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("arm", sa.String(length=96), nullable=False),
        sa.Column("metric", sa.String(length=64), nullable=False),
        sa.Column("moments", sa.Text(), nullable=True),
        sa.Column("histogram", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("experiment", "epoch", "arm", "metric", name=op.f("pk_experiment_statistics")),
    )
    op.create_table(
        "experiment_units",
        sa.Column("experiment", sa.String(length=96), nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("experiment", "epoch", "unit", name=op.f("pk_experiment_units")),
    )
    op.create_table(
        "experiments",
        sa.Column("name", sa.String(length=96), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("route", sa.String(length=96), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("origin", sa.String(length=16), nullable=False),
        sa.Column("resolved", sa.JSON(), nullable=False),
        sa.Column("ranges", sa.JSON(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("serving", sa.String(length=96), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("verdict", sa.JSON(), nullable=True),
        sa.Column("decision", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.String(length=96), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("decided_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_experiments")),
    )
    op.create_index(op.f("ix_experiments_state"), "experiments", ["state"], unique=False)
    op.create_table(
        "ingest_counts",
        sa.Column("reason", sa.String(length=32), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("reason", name=op.f("pk_ingest_counts")),
    )
    op.create_table(
        "ingest_offsets",
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("segment", sa.BigInteger(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("source", name=op.f("pk_ingest_offsets")),
    )
    op.create_table(
        "observations",
        sa.Column("tenant", sa.String(length=96), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("received", sa.Double(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_observations")),
    )
    op.create_index(op.f("ix_observations_request"), "observations", ["request"], unique=False)
    op.create_index("ix_observations_state_received", "observations", ["state", "received"], unique=False)
    op.create_table(
        "usage_minute",
        sa.Column("minute", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tenant", sa.String(length=96), nullable=False),
        sa.Column("route", sa.String(length=96), nullable=False),
        sa.Column("version", sa.String(length=255), nullable=False),
        sa.Column("arm", sa.String(length=200), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("refused", sa.BigInteger(), nullable=False),
        sa.Column("cancelled", sa.BigInteger(), nullable=False),
        sa.Column("cached", sa.BigInteger(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_nanousd", sa.BigInteger(), nullable=False),
        sa.Column("latency", sa.JSON(), nullable=False),
        sa.Column("first_token", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("minute", "tenant", "route", "version", "arm", name=op.f("pk_usage_minute")),
    )


def downgrade() -> None:
    op.drop_table("usage_minute")
    op.drop_index("ix_observations_state_received", table_name="observations")
    op.drop_index(op.f("ix_observations_request"), table_name="observations")
    op.drop_table("observations")
    op.drop_table("ingest_offsets")
    op.drop_table("ingest_counts")
    op.drop_index(op.f("ix_experiments_state"), table_name="experiments")
    op.drop_table("experiments")
    op.drop_table("experiment_units")
    op.drop_table("experiment_statistics")
    op.drop_table("experiment_points")
    op.drop_table("experiment_guardrails")
    op.drop_table("experiment_epochs")
    op.drop_index(op.f("ix_exchanges_sequence"), table_name="exchanges")
    op.drop_index(op.f("ix_exchanges_at"), table_name="exchanges")
    op.drop_table("exchanges")
