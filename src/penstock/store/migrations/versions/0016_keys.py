"""Keys of several hosts."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "subject_keys",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=16), nullable=False),
        sa.Column("made_at", sa.Double(), nullable=False),
        sa.Column("head", sa.LargeBinary(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("destroyed_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subject_keys")),
    )
    op.create_index(op.f("ix_subject_keys_subject"), "subject_keys", ["subject"], unique=False)
    op.create_index(op.f("ix_subject_keys_tenant"), "subject_keys", ["tenant"], unique=False)
    op.create_table(
        "key_orders",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tenant", sa.String(length=16), nullable=False),
        sa.Column("subject", sa.String(length=32), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_key_orders")),
    )
    op.create_index(op.f("ix_key_orders_tenant_subject"), "key_orders", ["tenant", "subject"], unique=False)
    op.create_table(
        "key_hosts",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("applied", sa.BigInteger(), nullable=False),
        sa.Column("slots", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_key_hosts")),
    )
