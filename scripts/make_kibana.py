"""Writes `deploy/kibana/penstock.ndjson`: data views, saved searches and a dashboard for Kibana 8 and 9. `python scripts/make_kibana.py`

A test compares the file with what this makes, and its fields with those of the index template.
"""

import json
from pathlib import Path
from typing import Any

from penstock.journal.ecs import EVENTS, EXCHANGES, OBSERVATIONS

FILE = Path(__file__).parents[1] / "deploy" / "kibana" / "penstock.ndjson"
CORE = "8.8.0"
TYPE = "8.0.0"  # Kibana brings objects of this version up to its own
VIEWS = {
    "penstock-exchanges": (EXCHANGES, "Penstock requests"),
    "penstock-observations": (OBSERVATIONS, "Penstock feedback"),
    "penstock-events": (EVENTS, "Penstock changes"),
}
REQUESTS = "penstock-exchanges"

Object = dict[str, Any]

COLUMNS = ["organization.id", "gen_ai.request.model", "penstock.arm", "http.response.status_code", "penstock.outcome"]
COLUMNS += ["error.code", "event.duration", "penstock.cost.usd", "event.id", "trace.id"]
SEARCHES = {
    "penstock-requests": ("Requests", REQUESTS, "", COLUMNS),
    "penstock-failed": ("Failed requests", REQUESTS, "tags : failed", COLUMNS),
    "penstock-slow": ("Slow requests", REQUESTS, "tags : slow", COLUMNS),
    "penstock-flagged": (
        "Requests in which a rule found something",
        REQUESTS,
        "tags : flagged",
        [*COLUMNS, "penstock.findings.rule", "penstock.findings.action"],
    ),
    "penstock-refused": ("Refused requests", REQUESTS, "penstock.outcome : refused", COLUMNS),
    "penstock-remarkable": ("Failed, slow or flagged requests", REQUESTS, "tags : *", ["tags", *COLUMNS]),
    "penstock-reports": (
        "Reports and feedback",
        "penstock-observations",
        "",
        [
            "event.action",
            "organization.id",
            "penstock.request",
            "penstock.observation.name",
            "penstock.observation.rating",
        ],
    ),
    "penstock-changes": (
        "Changes, alerts and restarts",
        "penstock-events",
        "",
        [
            "user.name",
            "event.action",
            "penstock.change.subject",
            "event.outcome",
            "event.reason",
            "penstock.change.after",
        ],
    ),
}


def saved(kind: str, name: str, attributes: Object, references: list[Object] | None = None) -> Object:
    """One saved object."""
    return {
        "type": kind,
        "id": name,
        "attributes": attributes,
        "references": references or [],
        "coreMigrationVersion": CORE,
        "typeMigrationVersion": TYPE,
        "managed": False,
    }


def source(query: str, *, view: str | None) -> tuple[Object, list[Object]]:
    """A search source, and the reference to its data view."""
    told: Object = {"query": {"query": query, "language": "kuery"}, "filter": []}
    references = []
    if view is not None:
        reference = "kibanaSavedObjectMeta.searchSourceJSON.index"
        told["indexRefName"] = reference
        references.append({"name": reference, "type": "index-pattern", "id": view})
    return {"searchSourceJSON": json.dumps(told)}, references


def view(name: str) -> Object:
    """A data view."""
    dataset, title = VIEWS[name]
    formats = {
        "event.duration": {
            "id": "duration",
            "params": {"inputFormat": "nanoseconds", "outputFormat": "asMilliseconds", "outputPrecision": 1},
        },
        "penstock.cost.usd": {"id": "number", "params": {"pattern": "$0,0.000000"}},
    }
    return saved(
        "index-pattern",
        name,
        {
            "title": f"logs-{dataset}-*",
            "name": title,
            "timeFieldName": "@timestamp",
            "fieldFormatMap": json.dumps(formats if name == REQUESTS else {}),
            "fields": "[]",
            "runtimeFieldMap": "{}",
            "sourceFilters": "[]",
        },
    )


def search(name: str) -> Object:
    """A saved search."""
    title, of, query, columns = SEARCHES[name]
    meta, references = source(query, view=of)
    attributes = {
        "title": f"Penstock: {title}",
        "description": "",
        "columns": columns,
        "sort": [["@timestamp", "desc"]],
        "grid": {},
        "hideChart": False,
        "kibanaSavedObjectMeta": meta,
    }
    return saved("search", name, attributes, references)


def agg(number: int, kind: str, schema: str, **params: Any) -> Object:
    """One aggregation of a chart."""
    return {"id": str(number), "enabled": True, "type": kind, "schema": schema, "params": params}


def terms(number: int, field: str, schema: str, size: int = 10) -> Object:
    """The most frequent values of a field."""
    return agg(
        number,
        "terms",
        schema,
        field=field,
        orderBy="1",
        order="desc",
        size=size,
        otherBucket=False,
        missingBucket=False,
    )


def over_time(number: int) -> Object:
    """Time as the axis."""
    return agg(
        number, "date_histogram", "segment", field="@timestamp", useNormalizedEsInterval=True, interval="auto",
        drop_partials=False, min_doc_count=1, extended_bounds={},
    )  # fmt: skip


def axes(kind: str, *, series: list[tuple[str, str]], stacked: bool) -> Object:
    """How a chart over time is drawn; `series` are ids of aggregations and their labels."""
    return {
        "type": kind,
        "grid": {"categoryLines": False},
        "categoryAxes": [
            {"id": "CategoryAxis-1", "type": "category", "position": "bottom", "show": True, "style": {},
             "scale": {"type": "linear"}, "labels": {"show": True, "filter": True, "truncate": 100}, "title": {}}
        ],
        "valueAxes": [
            {"id": "ValueAxis-1", "name": "LeftAxis-1", "type": "value", "position": "left", "show": True, "style": {},
             "scale": {"type": "linear", "mode": "normal"}, "labels": {"show": True, "rotate": 0, "filter": False, "truncate": 100},
             "title": {"text": ""}}
        ],
        "seriesParams": [
            {"show": True, "type": kind, "mode": "stacked" if stacked else "normal", "data": {"id": number, "label": label},
             "valueAxis": "ValueAxis-1", "drawLinesBetweenPoints": True, "lineWidth": 2, "showCircles": True}
            for number, label in series
        ],
        "addTooltip": True, "addLegend": True, "legendPosition": "right", "times": [], "addTimeMarker": False,
        "thresholdLine": {"show": False, "value": 10, "width": 1, "style": "full", "color": "#E7664C"}, "labels": {},
    }  # fmt: skip


TABLE: Object = {
    "perPage": 10, "showPartialRows": False, "showMetricsAtAllLevels": False, "showTotal": False, "totalFunc": "sum",
    "percentageCol": "", "showToolbar": True,
}  # fmt: skip
NUMBERS: Object = {
    "addTooltip": True, "addLegend": False, "type": "metric",
    "metric": {"percentageMode": False, "useRanges": False, "colorSchema": "Green to Red", "metricColorMode": "None",
               "colorsRange": [{"from": 0, "to": 10000}], "labels": {"show": True}, "invertColors": False,
               "style": {"bgFill": "#000", "bgColor": False, "labelColor": False, "subText": "", "fontSize": 40}},
}  # fmt: skip
COUNT = agg(1, "count", "metric")
CHARTS: dict[str, tuple[str, str, list[Object], Object]] = {
    "penstock-numbers": (
        "Requests, tokens, cost",
        "metric",
        [
            COUNT,
            agg(2, "sum", "metric", field="gen_ai.usage.output_tokens", customLabel="output tokens"),
            agg(3, "sum", "metric", field="penstock.cost.usd", customLabel="USD"),
            agg(4, "cardinality", "metric", field="user.hash", customLabel="users"),
        ],
        NUMBERS,
    ),
    "penstock-outcomes": (
        "Requests by outcome",
        "histogram",
        [COUNT, over_time(2), terms(3, "penstock.outcome", "group")],
        axes("histogram", series=[("1", "Requests")], stacked=True),
    ),
    "penstock-durations": (
        "Duration: median, 95th and 99th percentile",
        "line",
        [agg(1, "percentiles", "metric", field="event.duration", percents=[50, 95, 99], customLabel="ms"), over_time(2)],
        axes("line", series=[("1", "Duration")], stacked=False),
    ),
    "penstock-tokens": (
        "Tokens",
        "histogram",
        [
            agg(1, "sum", "metric", field="gen_ai.usage.input_tokens", customLabel="input"),
            agg(2, "sum", "metric", field="gen_ai.usage.output_tokens", customLabel="output"),
            over_time(3),
        ],
        axes("histogram", series=[("1", "input"), ("2", "output")], stacked=True),
    ),
    "penstock-tenants": (
        "Tenants",
        "table",
        [
            COUNT,
            agg(2, "sum", "metric", field="penstock.cost.usd", customLabel="USD"),
            agg(3, "percentiles", "metric", field="event.duration", percents=[95]),
            terms(4, "organization.id", "bucket"),
        ],
        TABLE,
    ),
    "penstock-versions": (
        "Versions and arms",
        "table",
        [
            COUNT,
            agg(2, "percentiles", "metric", field="event.duration", percents=[50, 95]),
            terms(3, "gen_ai.response.model", "bucket"),
            terms(4, "penstock.arm", "bucket"),
        ],
        TABLE,
    ),
    "penstock-errors": ("Errors", "table", [COUNT, terms(2, "error.code", "bucket")], TABLE),
    "penstock-findings": (
        "What rules found",
        "table",
        [COUNT, terms(2, "penstock.findings.rule", "bucket"), terms(3, "penstock.findings.action", "bucket")],
        TABLE,
    ),
}  # fmt: skip


def chart(name: str) -> Object:
    """A visualization."""
    title, kind, aggs, params = CHARTS[name]
    meta, references = source("", view=REQUESTS)
    state = {"title": f"Penstock: {title}", "type": kind, "aggs": aggs, "params": params}
    attributes = {
        "title": state["title"],
        "description": "",
        "uiStateJSON": "{}",
        "version": 1,
        "visState": json.dumps(state),
        "kibanaSavedObjectMeta": meta,
    }
    return saved("visualization", name, attributes, references)


# Name of the object, and its place: x, y, width, height, of 48 columns.
PLACES: dict[str, tuple[int, int, int, int]] = {
    "penstock-numbers": (0, 0, 48, 7),
    "penstock-outcomes": (0, 7, 24, 12),
    "penstock-durations": (24, 7, 24, 12),
    "penstock-tokens": (0, 19, 24, 12),
    "penstock-tenants": (24, 19, 24, 12),
    "penstock-versions": (0, 31, 24, 12),
    "penstock-errors": (24, 31, 12, 12),
    "penstock-findings": (36, 31, 12, 12),
    "penstock-remarkable": (0, 43, 48, 16),
    "penstock-changes": (0, 59, 48, 12),
}


def dashboard() -> Object:
    """The dashboard, whose panels are the charts and a search."""
    panels, references = [], []
    for number, (name, (x, y, width, height)) in enumerate(PLACES.items(), 1):
        kind = "search" if name in SEARCHES else "visualization"
        panels.append(
            {
                "version": "8.8.0",
                "type": kind,
                "gridData": {"x": x, "y": y, "w": width, "h": height, "i": str(number)},
                "panelIndex": str(number),
                "embeddableConfig": {"enhancements": {}},
                "panelRefName": f"panel_{number}",
            }
        )
        references.append({"name": f"{number}:panel_{number}", "type": kind, "id": name})
    meta, _ = source("", view=None)
    attributes = {
        "title": "Penstock",
        "description": "Requests, durations, tokens, cost, errors and findings",
        "hits": 0,
        "panelsJSON": json.dumps(panels),
        "optionsJSON": json.dumps({"useMargins": True, "syncColors": False, "hidePanelTitles": False}),
        "timeRestore": True,
        "timeFrom": "now-24h",
        "timeTo": "now",
        "refreshInterval": {"pause": False, "value": 30000},
        "version": 1,
        "kibanaSavedObjectMeta": meta,
    }
    return saved("dashboard", "penstock", attributes, references)


def objects() -> list[Object]:
    """All saved objects, each after what it refers to."""
    return [*map(view, VIEWS), *map(search, SEARCHES), *map(chart, CHARTS), dashboard()]


def text() -> str:
    """The file."""
    return "".join(json.dumps(one, separators=(",", ":")) + "\n" for one in objects())


def main() -> None:
    """Writes it."""
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
