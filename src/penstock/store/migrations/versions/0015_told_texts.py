"""Whose the texts of feedback and reports are, and their order."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "told_texts",
        sa.Column("tenant", sa.String(length=96), nullable=False),
        sa.Column("request", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("received", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "request", name=op.f("pk_told_texts")),
    )
    op.create_index(op.f("ix_told_texts_tenant_subject"), "told_texts", ["tenant", "subject"], unique=False)
    op.create_index(op.f("ix_observations_sequence"), "observations", ["sequence"], unique=False)
