"""Sessions, engagement and conversions."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_COUNTS = ("sessions", "engaged", "session_requests", "session_ms", "events", "conversions", "feedback", "reports")


def upgrade() -> None:
    op.create_table(
        "visits",
        sa.Column("tenant", sa.String(length=96), nullable=False),
        sa.Column("visitor", sa.String(length=128), nullable=False),
        sa.Column("began", sa.Double(), nullable=False),
        sa.Column("last", sa.Double(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("route", sa.String(length=96), nullable=False),
        sa.Column("version", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "visitor", name=op.f("pk_visits")),
    )
    op.create_index(op.f("ix_visits_last"), "visits", ["last"], unique=False)
    op.create_table(
        "engagement_minute",
        sa.Column("minute", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tenant", sa.String(length=96), nullable=False),
        sa.Column("route", sa.String(length=96), nullable=False),
        sa.Column("version", sa.String(length=255), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _COUNTS),
        sa.PrimaryKeyConstraint("minute", "tenant", "route", "version", name=op.f("pk_engagement_minute")),
    )
