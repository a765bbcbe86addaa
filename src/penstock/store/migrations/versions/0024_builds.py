"""Jobs that make builds, and builds with a manifest of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("builds", sa.Column("manifest", sa.Text(), nullable=True))
    op.add_column("builds", sa.Column("job", sa.String(length=40), nullable=True))
    op.create_table(
        "build_jobs",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("model", sa.String(length=96), nullable=False),
        sa.Column("label", sa.String(length=128), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("engine", sa.String(length=32), nullable=False),
        sa.Column("precision", sa.String(length=16), nullable=False),
        sa.Column("measure", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("steps", sa.JSON(), nullable=False),
        sa.Column("converter", sa.Text(), nullable=False),
        sa.Column("build", sa.String(length=71), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(length=160), nullable=False),
        sa.Column("lease_until", sa.Double(), nullable=False),
        sa.Column("requested_by", sa.String(length=96), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["model", "label"], ["versions.model", "versions.label"], name=op.f("fk_build_jobs_model_label_versions")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_build_jobs")),
    )
    op.create_index(op.f("ix_build_jobs_state"), "build_jobs", ["state"], unique=False)
    op.create_index(op.f("ix_build_jobs_model_label"), "build_jobs", ["model", "label"], unique=False)
