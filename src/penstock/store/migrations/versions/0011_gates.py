"""Suites, evaluations, approvals, judgements, signers and signatures."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "suites",
        sa.Column("name", sa.String(length=96), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("lines", sa.Text(), nullable=False),
        sa.Column("items", sa.BigInteger(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.String(length=96), nullable=False),
        sa.PrimaryKeyConstraint("name", "digest", name=op.f("pk_suites")),
    )
    op.create_table(
        "evaluations",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("model", sa.String(length=96), nullable=False),
        sa.Column("label", sa.String(length=128), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("precision", sa.String(length=16), nullable=False),
        sa.Column("build", sa.String(length=71), nullable=False),
        sa.Column("suite", sa.String(length=96), nullable=False),
        sa.Column("suite_digest", sa.String(length=71), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("settings_hash", sa.String(length=71), nullable=False),
        sa.Column("engine_digest", sa.String(length=71), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("holder", sa.String(length=160), nullable=False),
        sa.Column("lease_until", sa.Double(), nullable=False),
        sa.Column("requested_by", sa.String(length=96), nullable=False),
        sa.Column("replay_of", sa.String(length=40), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluations")),
    )
    op.create_index(op.f("ix_evaluations_digest_kind"), "evaluations", ["digest", "kind"], unique=False)
    op.create_index(op.f("ix_evaluations_state"), "evaluations", ["state"], unique=False)
    op.create_table(
        "evaluation_items",
        sa.Column("evaluation", sa.String(length=40), nullable=False),
        sa.Column("item", sa.String(length=96), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("correct", sa.Boolean(), nullable=True),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["evaluation"], ["evaluations.id"], name=op.f("fk_evaluation_items_evaluation")),
        sa.PrimaryKeyConstraint("evaluation", "item", name=op.f("pk_evaluation_items")),
    )
    op.create_table(
        "approvals",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("environment", sa.String(length=96), nullable=False),
        sa.Column("model", sa.String(length=96), nullable=False),
        sa.Column("label", sa.String(length=128), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("policy_hash", sa.String(length=71), nullable=False),
        sa.Column("results_hash", sa.String(length=71), nullable=False),
        sa.Column("principal", sa.String(length=96), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("withdrawn_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approvals")),
    )
    op.create_index(
        op.f("ix_approvals_environment_model_digest"), "approvals", ["environment", "model", "digest"], unique=False
    )
    op.create_table(
        "judgements",
        sa.Column("revision", sa.String(length=40), nullable=False),
        sa.Column("policy_hash", sa.String(length=71), nullable=False),
        sa.Column("outcomes", sa.JSON(), nullable=False),
        sa.Column("overridden_by", sa.String(length=96), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["revision"], ["revisions.id"], name=op.f("fk_judgements_revision")),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_judgements")),
    )
    op.create_table(
        "signers",
        sa.Column("name", sa.String(length=96), nullable=False),
        sa.Column("public", sa.String(length=64), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.String(length=96), nullable=False),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.Column("revoked_by", sa.String(length=96), nullable=True),
        sa.Column("revoked_reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_signers")),
    )
    op.create_table(
        "signatures",
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("public", sa.String(length=64), nullable=False),
        sa.Column("envelope", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("principal", sa.String(length=96), nullable=False),
        sa.PrimaryKeyConstraint("digest", "public", name=op.f("pk_signatures")),
    )
