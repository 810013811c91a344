"""The OpenAPI document: what the frame knows, and the bodies and parameters we read ourselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from cloud.api.samples import add_examples

_REFERENCE = "#/components/schemas/{model}"

ABOUT = """
Runs containers on fleets of small machines.

Every answer has one shape: `{"status": "ok", "data": ..., "message": "..."}`; a refusal has
`"status": "error"`, `"data": null` and a stable `code`, and `field` where one did not fit.
Unknown fields and parameters are refused, never ignored. Times are RFC 3339 in UTC, ids are UUID4.
`X-Request-Id` comes back as sent, or is made; the log has it.
"""
TAGS = [
    {"name": "health", "description": "Whether the cloud itself works."},
    {"name": "devices", "description": "Who is enrolled, and what each device says of itself."},
    {"name": "commands", "description": "Things a device does once."},
    {"name": "deployments", "description": "Releases, and bringing them to devices."},
    {"name": "configuration", "description": "How agents work, and what services get beside their manifest."},
    {"name": "monitoring", "description": "Samples that devices sent."},
    {"name": "events", "description": "What happens, while it happens; and what could not be read."},
    {"name": "enrolment", "description": "How a device comes to its certificate."},
    {"name": "keys", "description": "API keys and their scopes."},
]


def takes(
    *,
    body: type[BaseModel] | None = None,
    examples: Mapping[str, Any] | None = None,
    query: type[BaseModel] | None = None,
) -> dict[str, Any]:
    """Return the `openapi_extra` of an operation that reads *body* and *query* by `dependencies`."""
    extra: dict[str, Any] = {}
    if body is not None:
        shown = {name: {"value": value} for name, value in (examples or {}).items()}
        media: dict[str, Any] = {
            "schema": {"$ref": _REFERENCE.format(model=body.__name__)},
            "examples": shown,
        }
        extra["requestBody"] = {"required": True, "content": {"application/json": media}}
    if query is not None:
        extra["parameters"] = parameters(query)
    return extra


def parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """Return *model*'s fields as query parameters."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    required = schema.get("required", [])
    return [
        _parameter(name, _inlined(field, definitions), required=name in required)
        for name, field in schema.get("properties", {}).items()
    ]


def _parameter(name: str, schema: dict[str, Any], *, required: bool) -> dict[str, Any]:
    description = schema.pop("description", "")
    schema.pop("title", None)
    return {"name": name, "in": "query", "required": required, "description": description, "schema": schema}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """Return *schema* without references and without the null that a parameter cannot be."""
    if isinstance(schema, list):
        return [_inlined(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return {**_inlined(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions), **_rest(schema)}
    options = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(options) == 1:
        return {**_inlined(options[0], definitions), **_rest(schema)}
    return {key: _inlined(value, definitions) for key, value in schema.items() if value is not None}


def _rest(schema: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in schema.items() if key not in {"$ref", "anyOf"}}
    return {key: value for key, value in kept.items() if value is not None}


def document(
    app: FastAPI, *, title: str, version: str, bodies: tuple[type[BaseModel], ...]
) -> dict[str, Any]:
    """Return the whole document; *bodies* are the models that `takes` refers to."""
    found = get_openapi(
        title=title,
        version=version,
        description=ABOUT,
        routes=app.routes,
        tags=TAGS,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        separate_input_output_schemas=False,
    )
    _, schemas = models_json_schema([(body, "validation") for body in bodies], ref_template=_REFERENCE)
    found["components"]["schemas"].update(schemas["$defs"])
    _move_refusals(found)
    add_examples(found)
    return found


def _move_refusals(document: dict[str, Any]) -> None:
    """Give refusals of operations that answer with another type than JSON their schema where they are."""
    for path in document["paths"].values():
        for operation in path.values():
            for answer in operation["responses"].values():
                content = answer.get("content", {})
                if len(content) > 1 and "schema" not in content["application/json"]:
                    [other] = content.keys() - {"application/json"}
                    content["application/json"]["schema"] = content.pop(other)["schema"]
