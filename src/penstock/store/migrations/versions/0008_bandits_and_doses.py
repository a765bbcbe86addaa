"""Shares of a bandit by context, and the dose of a shadow or an interleaved experiment."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("experiment_epochs") as table:
        table.add_column(sa.Column("contexts", sa.JSON(), nullable=True))
    with op.batch_alter_table("experiments") as table:
        table.add_column(sa.Column("contexts", sa.JSON(), nullable=True))
        table.add_column(sa.Column("dose", sa.Double(), nullable=True))
