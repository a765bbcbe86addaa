"""Workers are watched by the names of their journals."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_table("watched")  # what stands in it is told anew every second
    op.create_table(
        "watched",
        sa.Column("journal", sa.String(length=64), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("worker", sa.String(length=64), nullable=False),
        sa.Column("reported_at", sa.Double(), nullable=False),
        sa.Column("heard_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("journal", name=op.f("pk_watched")),
    )
