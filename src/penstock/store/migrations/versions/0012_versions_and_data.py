"""Aliases, cards' revisions, lineage, data sets."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "aliases",
        sa.Column("model", sa.String(length=96), nullable=False),
        sa.Column("name", sa.String(length=96), nullable=False),
        sa.Column("label", sa.String(length=128), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("previous", sa.String(length=128), nullable=True),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("moved_at", sa.Double(), nullable=False),
        sa.Column("moved_by", sa.String(length=96), nullable=False),
        sa.ForeignKeyConstraint(
            ["model", "label"], ["versions.model", "versions.label"], name=op.f("fk_aliases_model_label_versions")
        ),
        sa.PrimaryKeyConstraint("model", "name", name=op.f("pk_aliases")),
    )
    op.create_table(
        "alias_moves",
        sa.Column("model", sa.String(length=96), nullable=False),
        sa.Column("name", sa.String(length=96), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("label", sa.String(length=128), nullable=True),
        sa.Column("digest", sa.String(length=71), nullable=True),
        sa.Column("previous", sa.String(length=128), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("principal", sa.String(length=96), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("model", "name", "number", name=op.f("pk_alias_moves")),
    )
    op.create_table(
        "card_revisions",
        sa.Column("model", sa.String(length=96), nullable=False),
        sa.Column("label", sa.String(length=128), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("principal", sa.String(length=96), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model", "label"],
            ["versions.model", "versions.label"],
            name=op.f("fk_card_revisions_model_label_versions"),
        ),
        sa.PrimaryKeyConstraint("model", "label", "number", name=op.f("pk_card_revisions")),
    )
    op.execute(
        "INSERT INTO card_revisions (model, label, number, text, reason, principal, at) "
        "SELECT model, label, 1, card, 'README.md of the version.', created_by, created_at FROM versions WHERE card <> ''"
    )
    op.create_table(
        "lineage_edges",
        sa.Column("model", sa.String(length=96), nullable=False),
        sa.Column("label", sa.String(length=128), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("relation", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("target", sa.String(length=512), nullable=False),
        sa.Column("target_digest", sa.String(length=71), nullable=False),
        sa.ForeignKeyConstraint(
            ["model", "label"], ["versions.model", "versions.label"], name=op.f("fk_lineage_edges_model_label_versions")
        ),
        sa.PrimaryKeyConstraint("model", "label", "position", name=op.f("pk_lineage_edges")),
    )
    op.create_index(op.f("ix_lineage_edges_target"), "lineage_edges", ["target"], unique=False)
    op.create_index(op.f("ix_lineage_edges_target_digest"), "lineage_edges", ["target_digest"], unique=False)
    op.create_table(
        "datasets",
        sa.Column("name", sa.String(length=96), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("origin", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_datasets")),
    )
    op.create_table(
        "dataset_revisions",
        sa.Column("name", sa.String(length=96), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("principal", sa.String(length=96), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", "number", name=op.f("pk_dataset_revisions")),
    )
    op.create_index(op.f("ix_dataset_revisions_digest"), "dataset_revisions", ["digest"], unique=False)
