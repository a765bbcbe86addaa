"""Writes the log alerts for Elasticsearch, and their page. `python scripts/make_log_alerts.py`

`deploy/kibana/rules/*.json` are for POST /api/alerting/rule/ID, `deploy/elasticsearch/watches/*.json` for PUT /_watcher/watch/ID. They are those of `penstock.journal.log_rules`. A test compares the files with what this makes and evaluates their queries.
"""

import json
import re
from pathlib import Path
from typing import Any

from penstock.journal.log_rules import TABLE, LogAlert, Where

ROOT = Path(__file__).parents[1]
RULES = ROOT / "deploy" / "kibana" / "rules"
WATCHES = ROOT / "deploy" / "elasticsearch" / "watches"
PAGE = ROOT / "docs" / "reference" / "log-alerts.md"
GROUPS = 100  # most that are told of at once

Object = dict[str, Any]


def ident(alert: LogAlert) -> str:
    """Its id in Elasticsearch and Kibana: `penstock-log-tenant-fails`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", alert.name).lower()


def clause(where: Where) -> Object:
    """One filter of the query DSL."""
    if where.any_of:
        return {"terms": {where.field: list(where.any_of)}}
    bounds: Object = {}
    if where.at_least is not None:
        bounds["gte"] = where.at_least
    if where.below is not None:
        bounds["lt"] = where.below
    return {"range": {where.field: bounds}}


def filters(alert: LogAlert) -> list[Object]:
    """All of its conditions."""
    return [clause(one) for one in alert.where]


def index(alert: LogAlert) -> str:
    """Where its documents are."""
    return f"logs-{alert.dataset}-*"


def rule(alert: LogAlert) -> Object:
    """A rule of Kibana's type "Elasticsearch query". It looks at the window itself; connectors are the operator's to add."""
    grouped = {"groupBy": "top", "termField": alert.by, "termSize": GROUPS} if alert.by else {"groupBy": "all"}
    return {
        "name": alert.name,
        "tags": ["penstock", alert.severity, f"runbook:{alert.runbook}"],
        "rule_type_id": ".es-query",
        "consumer": "alerts",
        "schedule": {"interval": "1m"},
        "enabled": True,
        "actions": [],
        "params": {
            "searchType": "esQuery",
            "index": [index(alert)],
            "timeField": "@timestamp",
            "esQuery": json.dumps({"query": {"bool": {"filter": filters(alert)}}}),
            "size": 10,
            "aggType": "count",
            **grouped,
            "threshold": [alert.count],
            "thresholdComparator": ">=",
            "timeWindowSize": alert.minutes,
            "timeWindowUnit": "m",
            "excludeHitsFromPreviousRun": False,
        },
    }


def watch(alert: LogAlert) -> Object:
    """A watch. What it finds is logged by Elasticsearch: other actions are the operator's to add."""
    window = {"range": {"@timestamp": {"gte": f"now-{alert.minutes}m", "lte": "now"}}}
    body: Object = {"size": 0, "track_total_hits": True, "query": {"bool": {"filter": [*filters(alert), window]}}}
    told = f"{alert.name} ({alert.severity}): "
    if alert.by:
        body["aggs"] = {"groups": {"terms": {"field": alert.by, "size": GROUPS, "min_doc_count": alert.count}}}
        buckets = "ctx.payload.aggregations.groups.buckets"
        condition: Object = {"array_compare": {buckets: {"path": "doc_count", "gte": {"value": alert.count}}}}
        each = f"{{{{#{buckets}}}}}{{{{key}}}}: {{{{doc_count}}}} {{{{/{buckets}}}}}"
        told += f"within {alert.minutes} minutes {each}"
    else:
        condition = {"compare": {"ctx.payload.hits.total": {"gte": alert.count}}}
        told += f"{{{{ctx.payload.hits.total}}}} within {alert.minutes} minutes"
    request = {"indices": [index(alert)], "rest_total_hits_as_int": True, "body": body}
    return {
        "metadata": {"name": alert.name, "severity": alert.severity, "runbook": f"docs/runbooks/{alert.runbook}.md"},
        "trigger": {"schedule": {"interval": "1m"}},
        "input": {"search": {"request": request}},
        "condition": condition,
        "throttle_period_in_millis": alert.minutes * 60_000,
        "actions": {"log": {"logging": {"level": "warn", "text": f"{told}; docs/runbooks/{alert.runbook}.md"}}},
    }


def files() -> dict[Path, str]:
    """Every file and its text."""
    made = {PAGE: page()}
    for alert in TABLE:
        made[RULES / f"{ident(alert)}.json"] = json.dumps(rule(alert), indent=2) + "\n"
        made[WATCHES / f"{ident(alert)}.json"] = json.dumps(watch(alert), indent=2) + "\n"
    return made


def condition(alert: LogAlert) -> str:
    """For people."""
    words = []
    for one in alert.where:
        if one.any_of:
            words.append(f"`{one.field}` is {' or '.join(f'`{value}`' for value in one.any_of)}")
        if one.at_least is not None:
            words.append(f"`{one.field}` >= {one.at_least:g}")
        if one.below is not None:
            words.append(f"`{one.field}` < {one.below:g}")
    return " and ".join(words)


def page() -> str:
    """The reference."""
    lines = [
        "# Log alerts",
        "",
        "<!-- Made by scripts/make_log_alerts.py; change that, then run it. -->",
        "",
        "What is looked for in single records: tenants, error codes, workers, what people wrote back. Metrics have no labels for these. Each fires when so many records",
        "of the last minutes fit; with a field in the column `by` each of its values is counted for itself. How they run is told in [monitoring](../monitoring.md).",
        "",
        "| alert | severity | records | by | fires at | runbook |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{one.name}` | {one.severity} | {condition(one)} | {f'`{one.by}`' if one.by else ''} | {one.count} in {one.minutes} min"
        f" | [{one.runbook}](../runbooks/{one.runbook}.md) |"
        for one in TABLE
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes them, and removes those that are no more."""
    made = files()
    for folder in (RULES, WATCHES):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.json"):
            if old not in made:
                old.unlink()
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
