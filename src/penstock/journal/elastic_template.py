"""What Elasticsearch must know before the first document: fields and their types, the index template, and how long documents live."""

from typing import Any

from penstock.core.state_events import FACTS
from penstock.journal.ecs import EVENTS, EXCHANGES, NAMESPACE, OBSERVATIONS

REVISION = 3  # raised with every change below, so that what an older version installed is replaced
POLICY = "penstock"
TEMPLATE = "penstock"
PRIORITY = 300  # above Elasticsearch's own template for `logs-*-*`, which has 100

_KEYWORDS = """
tags log.level ecs.version event.kind event.category event.type event.module event.dataset event.action event.id event.outcome
service.name service.type service.node.name http.request.method url.path error.code user.hash organization.id trace.id span.id parent.id
gen_ai.operation.name gen_ai.request.model gen_ai.response.model gen_ai.response.finish_reasons
penstock.outcome penstock.tenant penstock.key penstock.session penstock.route penstock.experiment penstock.arm penstock.unit penstock.pool
penstock.context penstock.copy_of penstock.beside
penstock.replica penstock.version penstock.digest penstock.cache penstock.request penstock.observation.name
penstock.findings.rule penstock.findings.action penstock.findings.where
user.name event.reason penstock.change.subject penstock.change.before penstock.change.after
"""
_LONGS = """
event.duration http.response.status_code gen_ai.usage.input_tokens gen_ai.usage.output_tokens
penstock.epoch penstock.phases.decoded penstock.phases.admitted penstock.phases.dispatched penstock.phases.first_token
penstock.phases.last_token penstock.phases.done penstock.engine.preprocess penstock.engine.queue penstock.engine.prefill
penstock.engine.decode penstock.engine.postprocess penstock.usage.cached penstock.chunks penstock.attempts penstock.resumed penstock.trimmed
penstock.generation penstock.findings.count penstock.observation.text_length penstock.observation.corrected_length
event.sequence penstock.change.restarts
"""
_BOOLEANS = """
penstock.stream penstock.hedged penstock.fallback penstock.escalated penstock.observation.success penstock.observation.consent
penstock.change.system
"""

FIELDS: dict[str, str] = {
    "@timestamp": "date",
    "event.start": "date",
    "event.end": "date",
    "message": "match_only_text",
    "data_stream.type": "constant_keyword",
    "data_stream.dataset": "constant_keyword",
    "data_stream.namespace": "constant_keyword",
    "penstock.cost.usd": "double",
    "penstock.observation.rating": "double",
    "penstock.observation.value": "double",
    **dict.fromkeys(_KEYWORDS.split(), "keyword"),
    **{f"penstock.change.{name}": "keyword" for name in sorted(FACTS)},
    **dict.fromkeys(_LONGS.split(), "long"),
    **dict.fromkeys(_BOOLEANS.split(), "boolean"),
}


def lifecycle(retention_days: int) -> dict[str, Any]:
    """The ILM policy: a new index each day or at 50 GB a shard; after `retention_days` it is deleted."""
    return {
        "policy": {
            "_meta": {"managed_by": "penstock", "revision": REVISION, "retention_days": retention_days},
            "phases": {
                "hot": {
                    "min_age": "0ms",
                    "actions": {"rollover": {"max_age": "1d", "max_primary_shard_size": "50gb"}},
                },
                "delete": {"min_age": f"{retention_days}d", "actions": {"delete": {}}},
            },
        }
    }


def index_template() -> dict[str, Any]:
    """The template of the data streams. A field that it does not know is kept, but not searched."""
    return {
        "index_patterns": [f"logs-{dataset}-*" for dataset in (EXCHANGES, OBSERVATIONS, EVENTS)],
        "data_stream": {},
        "priority": PRIORITY,
        "template": {
            "settings": {"index": {"lifecycle": {"name": POLICY}, "codec": "best_compression"}},
            "mappings": {"dynamic": False, "properties": _properties()},
        },
        "_meta": {"managed_by": "penstock", "revision": REVISION, "namespace": NAMESPACE},
    }


def _properties() -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, kind in FIELDS.items():
        *above, last = path.split(".")
        place = tree
        for name in above:
            place = place.setdefault(name, {"properties": {}})["properties"]
        place[last] = {"type": kind, "ignore_above": 1024} if kind == "keyword" else {"type": kind}
    return tree
