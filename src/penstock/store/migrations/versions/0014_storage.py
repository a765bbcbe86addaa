"""Blocks, the packs that hold them, and the files that are made of them."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "stored_files",
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("blocks", sa.LargeBinary(), nullable=False),
        sa.Column("seal", sa.String(length=64), nullable=False),
        sa.Column("touched_at", sa.Double(), nullable=False),
        sa.Column("thinned_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_stored_files")),
    )
    op.create_index(op.f("ix_stored_files_seal"), "stored_files", ["seal"], unique=False)
    op.create_table(
        "packs",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_packs")),
    )
    op.create_table(
        "stored_blocks",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("pack", sa.String(length=32), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.Column("base", sa.String(length=64), nullable=True),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("touched_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["pack"], ["packs.id"], name=op.f("fk_stored_blocks_pack")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_stored_blocks")),
    )
    op.create_index(op.f("ix_stored_blocks_pack"), "stored_blocks", ["pack"], unique=False)
    op.create_index(op.f("ix_stored_blocks_base"), "stored_blocks", ["base"], unique=False)
    op.create_table(
        "upload_files",
        sa.Column("upload", sa.String(length=40), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("seal", sa.String(length=64), nullable=False),
        sa.Column("blocks", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("upload", "digest", name=op.f("pk_upload_files")),
    )
    op.create_table(
        "pulls",
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_pulls")),
    )
    op.create_table(
        "pins",
        sa.Column("model", sa.String(length=96), nullable=False),
        sa.Column("label", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("principal", sa.String(length=96), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("model", "label", name=op.f("pk_pins")),
    )
    op.add_column("uploads", sa.Column("lease_until", sa.Double(), server_default="0", nullable=False))
