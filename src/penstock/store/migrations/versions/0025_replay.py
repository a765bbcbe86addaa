"""What a replay of an experiment must know: its planned size, and up to where its verdict and its counts go."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("experiments", sa.Column("planned", sa.BigInteger(), nullable=True))
    op.add_column("experiments", sa.Column("judged_to", sa.BigInteger(), nullable=True))
    op.add_column("experiments", sa.Column("counted_to", sa.BigInteger(), nullable=True))
