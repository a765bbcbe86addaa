"""Alembic's entry: migrations run on the connection that `store.sql` hands over, inside its transaction."""

from alembic import context

from penstock.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
