"""A list of spans as Zipkin's API takes it, written as a JSON Schema.

The facts are those of zipkin2-api.yaml (github.com/openzipkin/zipkin-api, definitions ListOfSpans, Span, Endpoint, Annotation, Tags): which members there are, of
which types, how long ids are, which kinds; and what its descriptions say in words: ids are lower-case hexadecimal, names and services lower case, durations of less than one
microsecond are rounded up. The published schema lets members pass that it does not name; here there are none.
"""

from typing import Any

from jsonschema import Draft202012Validator

_INT64 = 2**63 - 1
_ID = {"type": "string", "pattern": "^[0-9a-f]{16}$"}
_MICROSECONDS = {"type": "integer", "minimum": 1, "maximum": _INT64}
_LOWER = {"type": "string", "minLength": 1, "pattern": "^[^A-Z]*$"}
_ENDPOINT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "serviceName": _LOWER,
        "ipv4": {"type": "string", "format": "ipv4"},
        "ipv6": {"type": "string", "format": "ipv6"},
        "port": {"type": "integer", "minimum": 0, "maximum": 65535},
    },
    "additionalProperties": False,
}
_ANNOTATION: dict[str, Any] = {
    "type": "object",
    "properties": {"timestamp": _MICROSECONDS, "value": {"type": "string"}},
    "required": ["timestamp", "value"],
    "additionalProperties": False,
}
_SPAN: dict[str, Any] = {
    "type": "object",
    "properties": {
        "traceId": {"type": "string", "pattern": "^([0-9a-f]{16}|[0-9a-f]{32})$"},
        "id": _ID,
        "parentId": _ID,
        "name": _LOWER,
        "kind": {"enum": ["CLIENT", "SERVER", "PRODUCER", "CONSUMER"]},
        "timestamp": _MICROSECONDS,
        "duration": _MICROSECONDS,
        "debug": {"type": "boolean"},
        "shared": {"type": "boolean"},
        "localEndpoint": _ENDPOINT,
        "remoteEndpoint": _ENDPOINT,
        "annotations": {"type": "array", "items": _ANNOTATION},
        "tags": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["traceId", "id"],
    "additionalProperties": False,
}
LIST_OF_SPANS: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "ListOfSpans",
    "type": "array",
    "items": _SPAN,
}
Draft202012Validator.check_schema(LIST_OF_SPANS)
_VALIDATOR = Draft202012Validator(LIST_OF_SPANS, format_checker=Draft202012Validator.FORMAT_CHECKER)


def zipkin_faults(spans: Any) -> list[str]:
    """What is wrong with `spans`, each with its place."""
    return [f"{error.json_path}: {error.message}" for error in _VALIDATOR.iter_errors(spans)]
