"""Examples of answers, made from the schemas themselves, so that they can never disagree with them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ID = "0b6f2f6e-7d0f-4d5a-9c39-0d6f3e3b9a11"
_PLAIN: Mapping[str, Any] = {
    "uuid": _ID,
    "uuid4": _ID,
    "date-time": "2026-01-31T12:00:00Z",
    "string": "text",
    "integer": 1,
    "number": 1,
    "boolean": True,
}
"""By format, else by type."""
_DEEPEST = 12


def add_examples(document: dict[str, Any]) -> None:
    """Give every JSON answer in *document* (an OpenAPI 3.1 document) an example where it has none."""
    schemas = document["components"]["schemas"]
    for path in document["paths"].values():
        for operation in path.values():
            for answer in operation.get("responses", {}).values():
                media = answer.get("content", {}).get("application/json")
                if media and not media.keys() & {"example", "examples"}:
                    media["example"] = sample(media["schema"], schemas)


def sample(schema: Mapping[str, Any], schemas: Mapping[str, Any], *, depth: int = 0) -> Any:
    """Return a value that fits *schema*: its own example where it names one, else the plainest that fits."""
    given = _given(schema)
    if given or depth > _DEEPEST:
        return given[0] if given else None
    if "$ref" in schema:
        return sample(schemas[schema["$ref"].rsplit("/", 1)[-1]], schemas, depth=depth + 1)
    if alternatives := schema.get("anyOf") or schema.get("oneOf"):
        return sample(alternatives[0], schemas, depth=depth + 1)
    match schema.get("type"):
        case "object":
            return _object(schema, schemas, depth)
        case "array":
            return [sample(schema.get("items", {}), schemas, depth=depth + 1)]
        case plain:
            return _PLAIN.get(schema.get("format", "")) or _PLAIN.get(str(plain))


def _given(schema: Mapping[str, Any]) -> list[Any]:
    """Return the values the schema itself names."""
    single = [schema[key] for key in ("const", "default") if key in schema]
    return [*schema.get("examples", ()), *single, *schema.get("enum", ())]


def _object(schema: Mapping[str, Any], schemas: Mapping[str, Any], depth: int) -> dict[str, Any]:
    found = {
        name: sample(field, schemas, depth=depth + 1) for name, field in schema.get("properties", {}).items()
    }
    others = schema.get("additionalProperties")
    if not found and isinstance(others, dict) and others:
        key = sample(schema.get("propertyNames", {"type": "string"}), schemas, depth=depth + 1)
        return {str(key): sample(others, schemas, depth=depth + 1)}
    return found
