"""How far evaluators have come, what they found, and what waits."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "evaluator_offsets",
        sa.Column("evaluator", sa.String(length=96), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("evaluator", name=op.f("pk_evaluator_offsets")),
    )
    op.create_table(
        "evaluator_counts",
        sa.Column("evaluator", sa.String(length=96), nullable=False),
        sa.Column("experiment", sa.String(length=96), nullable=False),
        sa.Column("arm", sa.String(length=96), nullable=False),
        sa.Column("result", sa.String(length=16), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("evaluator", "experiment", "arm", "result", name=op.f("pk_evaluator_counts")),
    )
    op.create_table(
        "evaluator_waiting",
        sa.Column("evaluator", sa.String(length=96), nullable=False),
        sa.Column("experiment", sa.String(length=96), nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("question", sa.String(length=64), nullable=False),
        sa.Column("arm", sa.String(length=96), nullable=False),
        sa.Column("request", sa.String(length=64), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint(
            "evaluator", "experiment", "epoch", "question", "arm", name=op.f("pk_evaluator_waiting")
        ),
    )
    op.create_index(op.f("ix_evaluator_waiting_at"), "evaluator_waiting", ["at"], unique=False)
