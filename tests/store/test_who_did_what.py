"""What an older installation has is told whose it is: events, pushes, approvals, signers."""

import json
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, text

from penstock.store.sql import MIGRATIONS

OLD = (
    "INSERT INTO principals (name, roles, origin, created_at) VALUES ('ann', '[\"operator\"]', 'api', 1)",
    (
        "INSERT INTO keys (id, hash, name, principal, tenant, roles, limits, origin, created_at) VALUES "
        "('key_ann', 'h1', 'ann-1', 'ann', NULL, '[]', '{}', 'api', 1), "
        "('key_ci', 'h2', 'ci', NULL, NULL, '[\"developer\"]', '{}', 'api', 1), "
        "('key_shop', 'h3', 'shop', NULL, 'shop', '[\"auditor\"]', '{}', 'api', 1)"
    ),
    "INSERT INTO models (name, description, created_at, created_by) VALUES ('bot', '', 1, 'ann')",
    "INSERT INTO signers (name, public, sealed, created_at, created_by) VALUES ('release', 'p', 's', 1, 'ann')",
    (
        "INSERT INTO approvals (id, environment, model, label, digest, policy_hash, results_hash, principal, reason, at) VALUES "
        "('apr_1', 'production', 'bot', 'v1', 'd', 'p', 'r', 'ann', '', 1), "
        "('apr_2', 'production', 'bot', 'v1', 'd', 'p', 'r', 'somebody', '', 1)"
    ),
)
EVENTS: list[tuple[str, str, str, dict[str, Any], bool]] = [  # key, action, subject, detail, by control itself
    ("key_ann", "version.commit", "bot:v1", {}, False),
    ("key_ci", "version.commit", "bot:v2", {}, False),
    ("", "version.commit", "bot:v3", {}, True),
    ("key_shop", "content.read", "req_1", {"tenant": "shop"}, False),
    ("key_ann", "content.read", "req_2", {"tenant": "other"}, False),
    ("key_ann", "tenant.put", "shop", {}, False),
    ("key_ann", "subject.forget", "shop/user:ab", {}, False),
    ("key_ann", "key.create", "key_shop", {"tenant": "shop"}, False),
    ("key_ann", "key.create", "key_ci", {"tenant": None}, False),
]


def upgrade(connection: Connection, to: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def test_what_was_there_is_told_whose_it_is(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'old.db'}")
    with engine.connect() as connection:
        upgrade(connection, "0018")
        for statement in OLD:
            connection.execute(text(statement))
        for number, (key, action, subject, detail, system) in enumerate(EVENTS):
            connection.execute(
                text(
                    "INSERT INTO audit_events (sequence, at, principal, key, action, subject, detail, system) "
                    "VALUES (:n, 1, 'x', :key, :action, :subject, :detail, :system)"
                ),
                {
                    "n": number,
                    "key": key,
                    "action": action,
                    "subject": subject,
                    "detail": json.dumps(detail),
                    "system": system,
                },
            )
        for label in ("v1", "v2", "v3"):
            connection.execute(
                text(
                    "INSERT INTO versions (model, label, digest, scheme, number, state, manifest, metadata, card, size, created_at, "
                    "created_by) VALUES ('bot', :label, 'd', 'semver', :n, 'committed', '{}', '{}', '', 1, 1, 'x')"
                ),
                {"label": label, "n": int(label[1:])},
            )
        connection.commit()
        upgrade(connection, "head")
        tenants = connection.execute(text("SELECT tenant FROM audit_events ORDER BY sequence")).scalars().all()
        assert tenants == [None, None, None, "shop", "other", "shop", "shop", "shop", None]
        ann = connection.execute(text("SELECT id FROM principals")).scalar_one()
        assert ann.startswith("prn_")
        pushed = connection.execute(text("SELECT label, pushed_by, pushed_with FROM versions ORDER BY label")).all()
        assert [tuple(row) for row in pushed] == [("v1", ann, "key_ann"), ("v2", "", "key_ci"), ("v3", "penstock", "")]
        given = connection.execute(text("SELECT person FROM approvals ORDER BY id")).scalars().all()
        assert given == [ann, ""]
        owner, roles = connection.execute(text("SELECT owner, roles FROM signers")).one()
        assert (owner, json.loads(roles)) == ("", ["admin", "operator"])
    engine.dispose()
