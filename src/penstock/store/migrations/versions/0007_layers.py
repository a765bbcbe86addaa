"""Strata, planned looks and covariates of experiments."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "experiment_layers",
        sa.Column("experiment", sa.String(length=96), nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("stratum", sa.String(length=128), nullable=False),
        sa.Column("arm", sa.String(length=96), nullable=False),
        sa.Column("metric", sa.String(length=64), nullable=False),
        sa.Column("sums", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("experiment", "epoch", "stratum", "arm", "metric", name=op.f("pk_experiment_layers")),
    )
    op.create_table(
        "experiment_looks",
        sa.Column("experiment", sa.String(length=96), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("experiment", "number", name=op.f("pk_experiment_looks")),
    )
    op.create_table(
        "experiment_past",
        sa.Column("experiment", sa.String(length=96), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("experiment", "unit", name=op.f("pk_experiment_past")),
    )
