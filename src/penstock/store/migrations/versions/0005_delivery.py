"""Blocks, canaries of deployments, and which gateway workers are watched."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "blocks",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("environment", sa.String(length=96), nullable=False),
        sa.Column("model", sa.String(length=96), nullable=False),
        sa.Column("label", sa.String(length=128), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("principal", sa.String(length=96), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("cleared_at", sa.Double(), nullable=True),
        sa.Column("cleared_by", sa.String(length=96), nullable=True),
        sa.Column("cleared_reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blocks")),
    )
    op.create_index(op.f("ix_blocks_environment_model"), "blocks", ["environment", "model"], unique=False)
    op.create_table(
        "canaries",
        sa.Column("experiment", sa.String(length=96), nullable=False),
        sa.Column("environment", sa.String(length=96), nullable=False),
        sa.Column("model", sa.String(length=96), nullable=False),
        sa.Column("revision", sa.String(length=40), nullable=False),
        sa.Column("incumbent", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("plan", sa.JSON(), nullable=False),
        sa.Column("words", sa.JSON(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("ended_by", sa.String(length=96), nullable=True),
        sa.ForeignKeyConstraint(["incumbent"], ["revisions.id"], name=op.f("fk_canaries_incumbent_revisions")),
        sa.ForeignKeyConstraint(["revision"], ["revisions.id"], name=op.f("fk_canaries_revision_revisions")),
        sa.PrimaryKeyConstraint("experiment", name=op.f("pk_canaries")),
    )
    op.create_index(
        op.f("ix_canaries_environment_model_state"), "canaries", ["environment", "model", "state"], unique=False
    )
    op.create_table(
        "watched",
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("worker", sa.String(length=64), nullable=False),
        sa.Column("reported_at", sa.Double(), nullable=False),
        sa.Column("heard_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("host", "worker", name=op.f("pk_watched")),
    )
