"""The part of JSON Schema that says what an answer's JSON must look like; what it does not know it refuses, rather than letting everything pass.

Keywords as in JSON Schema 2020-12 (https://json-schema.org/draft/2020-12/json-schema-validation), patterns in RE2.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from penstock.core.errors import BadRequest
from penstock.core.patterns import compile_pattern

_MEMORY = 1 << 20
_DEEP = 32

Schema = Mapping[str, Any]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "number": _is_number,
    "integer": lambda value: _is_number(value) and (isinstance(value, int) or value.is_integer()),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}
_SIZES = {
    "minLength": (str, 1),
    "maxLength": (str, -1),
    "minItems": (list, 1),
    "maxItems": (list, -1),
    "minProperties": (dict, 1),
    "maxProperties": (dict, -1),
}
_BOUNDS: dict[str, Callable[[float, float], bool]] = {
    "minimum": lambda value, bound: value >= bound,
    "maximum": lambda value, bound: value <= bound,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "exclusiveMaximum": lambda value, bound: value < bound,
}
_OTHERS = ("type", "enum", "const", "properties", "required", "additionalProperties", "items", "pattern", "anyOf")
_SILENT = ("title", "description", "$schema")
KNOWN = (*_OTHERS, *_SIZES, *_BOUNDS, *_SILENT)


def check_schema(schema: object, path: str = "json_schema", depth: int = 0) -> None:
    """Refuse a schema that says what `fits` would not look at.

    Raises:
        BadRequest: `param` is the path of what is wrong.
    """
    if not isinstance(schema, dict):
        raise BadRequest(f"{path}: a schema is an object.", param=path)
    if depth > _DEEP:
        raise BadRequest(f"{path}: a schema may be {_DEEP} deep.", param=path)
    for name, value in schema.items():
        sentence = _wrong(name, value)
        if sentence:
            raise BadRequest(f"{path}.{name}: {sentence}", param=f"{path}.{name}")
    inner = [(f"properties.{name}", one) for name, one in schema.get("properties", {}).items()]
    inner += [(f"anyOf.{at}", one) for at, one in enumerate(schema.get("anyOf", ()))]
    if "items" in schema:
        inner.append(("items", schema["items"]))
    if not isinstance(schema.get("additionalProperties", True), bool):
        inner.append(("additionalProperties", schema["additionalProperties"]))
    for name, one in inner:
        check_schema(one, f"{path}.{name}", depth + 1)


def _wrong(name: str, value: Any) -> str:
    """What is wrong with one keyword, or ""."""
    if name not in KNOWN:
        return f"this keyword is not looked at; use {', '.join(KNOWN)}."
    if name == "type" and not all(one in tuple(_TYPES) for one in (value if isinstance(value, list) else [value])):
        return f"use one of {', '.join(_TYPES)}, or a list of them."
    if name in _SIZES and not (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return "use a whole number from 0 on."
    if name in _BOUNDS and not (_is_number(value) and (isinstance(value, int) or math.isfinite(value))):
        return "use a number."
    if name in {"required", "enum", "anyOf"} and not isinstance(value, list):
        return "use a list."
    if name == "required" and not all(isinstance(one, str) for one in value):
        return "use a list of names."
    if name == "properties" and not isinstance(value, dict):
        return "use an object."
    if name == "pattern":
        if not isinstance(value, str):
            return "use a text."
        try:
            compile_pattern(value, _MEMORY)
        except BadRequest as error:
            return error.message
    return ""


def fits(schema: Schema, value: Any) -> bool:
    """Whether `value` (decoded JSON) is what a checked `schema` asks for."""
    wanted = schema.get("type")
    if wanted is not None and not any(_TYPES[one](value) for one in (wanted if isinstance(wanted, list) else [wanted])):
        return False
    if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
        return False
    if "const" in schema and not _same(value, schema["const"]):
        return False
    for name, (kind, sign) in _SIZES.items():
        if name in schema and isinstance(value, kind) and (len(value) - schema[name]) * sign < 0:
            return False
    if _is_number(value) and not all(within(value, schema[name]) for name, within in _BOUNDS.items() if name in schema):
        return False
    if isinstance(value, str) and "pattern" in schema:
        found = compile_pattern(schema["pattern"], _MEMORY).search(value.encode("utf-8", "surrogatepass"))
        if found is None:
            return False
    if "anyOf" in schema and not any(fits(one, value) for one in schema["anyOf"]):
        return False
    if isinstance(value, list) and "items" in schema and not all(fits(schema["items"], one) for one in value):
        return False
    return not isinstance(value, dict) or _object_fits(schema, value)


def _same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _object_fits(schema: Schema, value: dict[str, Any]) -> bool:
    if not all(name in value for name in schema.get("required", ())):
        return False
    inner: Schema = schema.get("properties", {})
    more = schema.get("additionalProperties", True)
    for name, one in value.items():
        wanted = inner.get(name, more)
        if wanted is False or (wanted is not True and not fits(wanted, one)):
            return False
    return True
