"""How many bytes a push is of."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("uploads", sa.Column("size", sa.BigInteger(), nullable=False, server_default="0"))
