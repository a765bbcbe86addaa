"""Alembic's entry: migrations run on the connection that `store.sql` hands over, inside its transaction."""

from alembic import context

from penstock.store.schema_experiments import exchanges

# All tables stand on one metadata; taking it from the module imported last has them all on it.
context.configure(connection=context.config.attributes["connection"], target_metadata=exchanges.metadata)
with context.begin_transaction():
    context.run_migrations()
