"""The JSON Schema of an experiment's spec, for the API's description: made of the design itself, so that neither can be out of date."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from penstock.experiments.design import Design

_PREFIX = "#/$defs/"


@lru_cache(maxsize=1)
def design_schema() -> dict[str, Any]:
    """The schema, whole: nothing in it refers to another place."""
    schema = msgspec.json.schema(Design)
    parts: Mapping[str, Any] = schema.get("$defs", {})
    return dict(_whole({key: value for key, value in schema.items() if key != "$defs"}, parts))


def _whole(part: Any, parts: Mapping[str, Any]) -> Any:
    if isinstance(part, Mapping):
        reference = part.get("$ref")
        if isinstance(reference, str) and reference.startswith(_PREFIX):
            return _whole(parts[reference.removeprefix(_PREFIX)], parts)
        return {key: _whole(value, parts) for key, value in part.items()}
    if isinstance(part, (list, tuple)):
        return [_whole(one, parts) for one in part]
    return part
