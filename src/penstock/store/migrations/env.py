"""Alembic's entry: migrations run on the connection that `store.sql` hands over, inside its transaction."""

from alembic import context

from penstock.store.schema_alerts import alerts
from penstock.store.schema_builds import build_jobs
from penstock.store.schema_delivery import canaries
from penstock.store.schema_drift import drift_groups
from penstock.store.schema_engagement import visits
from penstock.store.schema_evaluators import evaluator_offsets
from penstock.store.schema_experiments import exchanges
from penstock.store.schema_gates import suites
from penstock.store.schema_keys import subject_keys
from penstock.store.schema_pipelines import pipelines
from penstock.store.schema_storage import packs
from penstock.store.schema_versions import aliases

# All tables stand on one metadata, once their modules are imported.
assert (
    alerts.metadata
    is aliases.metadata
    is build_jobs.metadata
    is canaries.metadata
    is drift_groups.metadata
    is evaluator_offsets.metadata
    is subject_keys.metadata
    is visits.metadata
    is packs.metadata
    is pipelines.metadata
    is suites.metadata
    is exchanges.metadata
)
context.configure(connection=context.config.attributes["connection"], target_metadata=exchanges.metadata)
with context.begin_transaction():
    context.run_migrations()
