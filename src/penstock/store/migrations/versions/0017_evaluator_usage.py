"""What evaluators' calls have come to."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_USED = ("calls", "errors", "refused", "prompt_tokens", "completion_tokens", "cost_nanousd")


def upgrade() -> None:
    op.create_table(
        "evaluator_usage",
        sa.Column("evaluator", sa.String(length=96), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _USED),
        sa.PrimaryKeyConstraint("evaluator", name=op.f("pk_evaluator_usage")),
    )
