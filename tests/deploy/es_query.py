"""The part of Elasticsearch's query language that log alerts are written in, and nothing else: what is unknown is refused, not passed over.

Documents are as they are indexed; fields and their types are those of the index template.
"""

import json
from collections import Counter
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from penstock.journal.elastic_template import FIELDS
from tests.journal.sinks.elastic_server import flat

Index = list[tuple[str, dict[str, Any]]]  # data stream, document


class Refused(Exception):
    """Elasticsearch would refuse it, or might take it for something else."""


def only(given: dict[str, Any], *names: str) -> None:
    if set(given) - set(names):
        raise Refused(f"unknown: {set(given) - set(names)}")


def one_of(given: dict[str, Any]) -> tuple[str, Any]:
    if len(given) != 1:
        raise Refused(f"one name is wanted: {given}")
    return next(iter(given.items()))


def values(document: dict[str, Any], field: str, kinds: set[str]) -> list[Any]:
    """The values of a field that must have one of `kinds`."""
    if FIELDS.get(field) not in kinds:
        raise Refused(f"{field} is {FIELDS.get(field)}, not {kinds}")
    return [value for name, value in flat(document) if name == field]


def moment(told: str, now: float) -> float:
    """`now`, `now-5m`."""
    if told == "now":
        return now
    if not told.startswith("now-") or not told.endswith("m"):
        raise Refused(told)
    return now - 60 * int(told[4:-1])


def matches(clause: dict[str, Any], document: dict[str, Any], now: float) -> bool:
    kind, body = one_of(clause)
    if kind == "bool":
        only(body, "filter")
        return all(matches(one, document, now) for one in body["filter"])
    if kind == "terms":
        field, wanted = one_of(body)
        if not isinstance(wanted, list) or not all(isinstance(one, str) for one in wanted):
            raise Refused(f"{field}: {wanted}")
        return bool(set(wanted) & set(values(document, field, {"keyword"})))
    if kind != "range":
        raise Refused(kind)
    field, bounds = one_of(body)
    only(bounds, "gte", "lt", "lte")
    if field == "@timestamp":
        found = [datetime.fromisoformat(one).timestamp() for one in values(document, field, {"date"})]
        limits = {name: moment(told, now) for name, told in bounds.items()}
    else:
        found = values(document, field, {"long", "double"})
        limits = bounds
    return any(
        one >= limits.get("gte", one) and one <= limits.get("lte", one) and ("lt" not in limits or one < limits["lt"])
        for one in found
    )


def hits(index: Index, names: list[str], query: dict[str, Any], now: float) -> list[dict[str, Any]]:
    if not names or any(not any(fnmatchcase(stream, name) for stream, _ in index) for name in names if index):
        raise Refused(f"no index {names}")
    return [
        document
        for stream, document in index
        if any(fnmatchcase(stream, name) for name in names) and matches(query, document, now)
    ]


def buckets(documents: list[dict[str, Any]], field: str, size: int, least: int) -> dict[str, int]:
    """A `terms` aggregation."""
    counts = Counter(value for document in documents for value in set(values(document, field, {"keyword"})))
    found = sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:size]
    return {name: count for name, count in found if count >= least}


def watch_fires(watch: dict[str, Any], index: Index, now: float) -> dict[str, int]:
    """The groups for which a watch of Watcher fires, with their counts; "" for all together."""
    only(watch, "metadata", "trigger", "input", "condition", "throttle_period_in_millis", "actions")
    assert watch["trigger"]["schedule"]["interval"]
    request = watch["input"]["search"]["request"]
    only(request, "indices", "rest_total_hits_as_int", "body")
    body = request["body"]
    only(body, "size", "track_total_hits", "query", "aggs")
    found = hits(index, request["indices"], body["query"], now)
    kind, condition = one_of(watch["condition"])
    if kind == "compare":
        assert request["rest_total_hits_as_int"]
        assert body["track_total_hits"]
        path, bound = one_of(condition)
        assert path == "ctx.payload.hits.total"
        only(bound, "gte")
        return {"": len(found)} if len(found) >= bound["gte"] else {}
    assert kind == "array_compare"
    path, bound = one_of(condition)
    only(bound, "path", "gte")
    assert bound["path"] == "doc_count"
    name, aggregation = one_of(body["aggs"])
    assert path == f"ctx.payload.aggregations.{name}.buckets"
    terms = aggregation["terms"]
    only(terms, "field", "size", "min_doc_count")
    groups = buckets(found, terms["field"], terms["size"], terms["min_doc_count"])
    return groups if any(count >= bound["gte"]["value"] for count in groups.values()) else {}


def rule_fires(rule: dict[str, Any], index: Index, now: float) -> dict[str, int]:
    """The same of a rule of Kibana's type `.es-query`, which adds the window of time itself."""
    only(rule, "name", "tags", "rule_type_id", "consumer", "schedule", "enabled", "actions", "params")
    assert rule["rule_type_id"] == ".es-query"
    params = rule["params"]
    only(
        params, "searchType", "index", "timeField", "esQuery", "size", "aggType", "groupBy", "termField", "termSize",
        "threshold", "thresholdComparator", "timeWindowSize", "timeWindowUnit", "excludeHitsFromPreviousRun",
    )  # fmt: skip
    assert (params["searchType"], params["aggType"], params["thresholdComparator"]) == ("esQuery", "count", ">=")
    assert params["timeWindowUnit"] == "m"
    told = json.loads(params["esQuery"])
    only(told, "query")
    window = {"range": {params["timeField"]: {"gte": f"now-{params['timeWindowSize']}m", "lte": "now"}}}
    found = hits(index, params["index"], {"bool": {"filter": [told["query"], window]}}, now)
    (least,) = params["threshold"]
    if params["groupBy"] == "all":
        only(params, *(set(params) - {"termField", "termSize"}))
        return {"": len(found)} if len(found) >= least else {}
    assert params["groupBy"] == "top"
    assert params["excludeHitsFromPreviousRun"] is False, "not possible with a group"
    return buckets(found, params["termField"], params["termSize"], least)
