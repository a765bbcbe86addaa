"""Signed answers to the tests of readiness."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "readiness_answers",
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("test", sa.String(length=32), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("principal", sa.String(length=96), nullable=False),
        sa.Column("signer", sa.String(length=96), nullable=False),
        sa.Column("envelope", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "test", "number", name=op.f("pk_readiness_answers")),
    )
