"""Drift, and what alerts made control do."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "drift_groups",
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("arm", sa.String(length=200), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("last_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("alarms", sa.JSON(), nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("model", "arm", name=op.f("pk_drift_groups")),
    )
    op.create_index(op.f("ix_drift_groups_last_at"), "drift_groups", ["last_at"], unique=False)
    op.create_table(
        "drift_days",
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("arm", sa.String(length=200), nullable=False),
        sa.Column("signal", sa.String(length=32), nullable=False),
        sa.Column("day", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("psi", sa.Double(), nullable=False),
        sa.Column("distance", sa.Double(), nullable=False),
        sa.Column("p", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("model", "arm", "signal", "day", name=op.f("pk_drift_days")),
    )
    op.create_index(op.f("ix_drift_days_day"), "drift_days", ["day"], unique=False)
    op.create_table(
        "alert_actions",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("alert", sa.String(length=255), nullable=False),
        sa.Column("environment", sa.String(length=96), nullable=False),
        sa.Column("model", sa.String(length=96), nullable=False),
        sa.Column("label", sa.String(length=128), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("revision", sa.String(length=40), nullable=True),
        sa.PrimaryKeyConstraint("sequence", "environment", "model", name=op.f("pk_alert_actions")),
    )
    op.create_index(
        op.f("ix_alert_actions_environment_model_at"), "alert_actions", ["environment", "model", "at"], unique=False
    )
