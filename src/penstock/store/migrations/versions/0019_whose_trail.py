"""Whose events are: those of a tenant's keys, and those about it."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_DETAILED = ("key.create", "key.revoke", "content.read", "feedback.export")


def upgrade() -> None:
    op.add_column("audit_events", sa.Column("tenant", sa.String(length=96), nullable=True))
    op.create_index(op.f("ix_audit_events_tenant"), "audit_events", ["tenant"])
    events = sa.table(
        "audit_events",
        sa.column("sequence", sa.BigInteger),
        sa.column("key", sa.String),
        sa.column("action", sa.String),
        sa.column("subject", sa.String),
        sa.column("tenant", sa.String),
        sa.column("detail", sa.JSON),
    )
    keys = sa.table("keys", sa.column("id", sa.String), sa.column("tenant", sa.String))
    connection = op.get_bind()
    whose = sa.select(keys.c.tenant).where(keys.c.id == events.c.key).scalar_subquery()
    connection.execute(sa.update(events).values(tenant=whose))
    none = events.c.tenant.is_(None)
    about = events.c.action.in_(("tenant.put", "tenant.delete"))
    connection.execute(sa.update(events).where(none, about).values(tenant=sa.func.substr(events.c.subject, 1, 96)))
    detailed = events.c.action.in_(_DETAILED)
    connection.execute(sa.update(events).where(none, detailed).values(tenant=events.c.detail["tenant"].as_string()))
    forgotten = sa.select(events.c.sequence, events.c.subject).where(none, events.c.action == "subject.forget")
    for row in connection.execute(forgotten).all():
        tenant = row.subject.partition("/")[0]
        connection.execute(sa.update(events).where(events.c.sequence == row.sequence).values(tenant=tenant))
