"""Who may sign with a signer. Those that are there stay open to whom they were."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("signers", sa.Column("owner", sa.String(length=40), nullable=False, server_default=""))
    open_to = sa.Column("roles", sa.JSON(), nullable=False, server_default='["admin", "operator"]')
    op.add_column("signers", open_to)
