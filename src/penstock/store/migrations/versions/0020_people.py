"""Principals have ids: who pushed and who approved is told by them, not by names."""

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def _id(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=40), nullable=False, server_default="")


def upgrade() -> None:
    op.add_column("principals", _id("id"))
    op.add_column("versions", _id("pushed_by"))
    op.add_column("versions", _id("pushed_with"))
    op.add_column("approvals", _id("person"))
    connection = op.get_bind()
    principals = sa.table("principals", sa.column("name", sa.String), sa.column("id", sa.String))
    people = {}
    for name in connection.execute(sa.select(principals.c.name)).scalars().all():
        people[name] = f"prn_{hashlib.sha256(name.encode()).hexdigest()[:26]}"
        connection.execute(sa.update(principals).where(principals.c.name == name).values(id=people[name]))
    op.create_index("ix_principals_id", "principals", ["id"], unique=True)
    approvals = sa.table("approvals", sa.column("principal", sa.String), sa.column("person", sa.String))
    for name, identity in people.items():
        connection.execute(sa.update(approvals).where(approvals.c.principal == name).values(person=identity))
    _pushers(connection, people)


def _pushers(connection: sa.Connection, people: dict[str, str]) -> None:
    """Who pushed is in the trail: the key of each commit; the principal is the one that the key belongs to."""
    events = sa.table(
        "audit_events",
        sa.column("subject", sa.String),
        sa.column("key", sa.String),
        sa.column("action", sa.String),
        sa.column("system", sa.Boolean),
    )
    keys = sa.table("keys", sa.column("id", sa.String), sa.column("principal", sa.String))
    versions = sa.table(
        "versions",
        *(sa.column(name, sa.String) for name in ("model", "label", "pushed_by", "pushed_with")),
    )
    owners = {row.id: people.get(row.principal or "", "") for row in connection.execute(sa.select(keys))}
    for row in connection.execute(sa.select(events).where(events.c.action == "version.commit")).all():
        model, _, label = row.subject.partition(":")
        by = "penstock" if row.system else owners.get(row.key, "")
        mine = (versions.c.model == model) & (versions.c.label == label)
        connection.execute(sa.update(versions).where(mine).values(pushed_by=by, pushed_with=row.key))
