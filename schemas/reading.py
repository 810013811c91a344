"""From bytes to a typed message, or to one clear error.

The one way in for everything that comes from outside: MQTT payloads, REST
bodies, files. Limits are checked before parsing; JSON is RFC 8259 without its
loopholes (no duplicate keys, no NaN).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from schemas.errors import ErrorCode, Problem, Unreadable, problem, shown

MAX_PAYLOAD = 256 * 1024
"""Bytes of one MQTT payload."""
MAX_DEPTH = 32
"""Nested arrays and objects."""

Model = TypeVar("Model", bound=BaseModel)

_RANGE = {
    "greater_than", "greater_than_equal", "less_than", "less_than_equal", "too_long", "too_short",
    "string_too_long", "string_too_short", "multiple_of",
}  # fmt: skip


def read_json(payload: bytes, *, limit: int = MAX_PAYLOAD) -> Any:
    """Return the JSON value in *payload*.

    Raises `Unreadable` with a `payload.*` or `value.not_finite` code.
    """
    if len(payload) > limit:
        _unreadable(ErrorCode.PAYLOAD_TOO_LARGE, f"{len(payload)} bytes; the limit is {limit}")
    if not payload.strip():
        _unreadable(ErrorCode.PAYLOAD_EMPTY, "nothing was sent; a JSON value is needed, {} at least")
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as error:
        _unreadable(ErrorCode.PAYLOAD_NOT_UTF8, f"byte {error.start} is not UTF-8; send UTF-8 JSON")
    if "\\u0000" in text or "\x00" in text:
        _unreadable(ErrorCode.VALUE_BAD_CHARACTER, "the text holds a NUL character; remove it")
    return _loads(text)


def _loads(text: str) -> Any:
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        _unreadable(ErrorCode.PAYLOAD_TOO_DEEP, f"nested deeper than {MAX_DEPTH} levels; flatten it")
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_not_finite, parse_float=_float, parse_int=_int
        )
    except json.JSONDecodeError as error:
        _unreadable(ErrorCode.PAYLOAD_JSON_SYNTAX, f"line {error.lineno}, column {error.colno}: {error.msg}")
    _refuse_lone_surrogates(text)
    return value


def _refuse_lone_surrogates(text: str) -> None:
    r"""Refuse a lone `\ud800`: legal JSON, but no text that could be stored or sent on."""
    if "\\u" not in text and "\\U" not in text:
        return
    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        _unreadable(ErrorCode.VALUE_BAD_CHARACTER, "a lone surrogate escape is no character; remove it")


def _depth(text: str) -> int:
    """Return how deeply brackets nest outside strings, without recursion."""
    depth = deepest = 0
    quoted = escaped = False
    for character in text:
        if quoted:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                quoted = False
        elif character == '"':
            quoted = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        _unreadable(ErrorCode.PAYLOAD_DUPLICATE_KEY, f"key {shown(twice)} is given twice; keep one")
    return value


def _not_finite(word: str) -> NoReturn:
    _unreadable(ErrorCode.VALUE_NOT_FINITE, f"{word} is not a JSON number; send null or leave it out")


def _float(digits: str) -> float:
    value = float(digits)
    if value in {float("inf"), float("-inf")}:
        _unreadable(ErrorCode.VALUE_NOT_FINITE, f"{shown(digits)} is too large for a number")
    return value


def _int(digits: str) -> int:
    if len(digits) > 20:  # noqa: PLR2004 - 2**64 has 20 digits; longer ones are slow to parse and fit nowhere
        _unreadable(ErrorCode.VALUE_OUT_OF_RANGE, f"{shown(digits)} is too large for an integer")
    return int(digits)


def read(model: type[Model], payload: bytes, *, limit: int = MAX_PAYLOAD) -> Model:
    """Return *payload* as *model*. Raises `Unreadable` that names the first field that does not fit."""
    return fit(model, read_json(payload, limit=limit))


def fit(model: type[Model], value: Any) -> Model:
    """Return the JSON *value* as *model*. Raises `Unreadable`."""
    try:
        return model.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise Unreadable(explain(error, model, value)) from error


def explain(error: ValidationError, model: type[BaseModel], value: Any) -> Problem:
    """Return the most telling of pydantic's complaints about *value* as one `Problem`.

    An unknown field comes before a missing one, and that before the rest.
    """
    order = {"extra_forbidden": 0, "missing": 1}
    first = min(error.errors(include_url=False), key=lambda detail: order.get(detail["type"], 2))
    path = _path(first, value)
    field = ".".join(map(str, path))
    code, text = _describe(first, path, model)
    return problem(code, f"{field}: {text}" if field else text, field=field[:300] or None)


def _path(detail: ErrorDetails, value: Any) -> list[int | str]:
    """Return where in *value* the complaint points, without pydantic's names of union branches."""
    path: list[int | str] = []
    for part in detail["loc"]:
        if (isinstance(value, dict) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and part < len(value)
        ):
            path.append(part)
            value = value[part]  # type: ignore[index,call-overload,unused-ignore]
    return [*path, detail["loc"][-1]] if detail["type"] == "missing" else path


def _describe(
    detail: ErrorDetails, path: Sequence[int | str], model: type[BaseModel]
) -> tuple[ErrorCode, str]:
    kind, value = detail["type"], shown(detail.get("input"))
    context = detail.get("ctx", {})
    match kind, context.get("error"):
        case "extra_forbidden", _:
            found = ErrorCode.FIELD_UNKNOWN, f"there is no such field{_did_you_mean(path, model)}"
        case "missing", _:
            found = ErrorCode.FIELD_MISSING, "this field is required; add it"
        case "string_pattern_mismatch", _:
            found = ErrorCode.VALUE_BAD_CHARACTER, f"{value} does not match {context['pattern']}"
        case _, CodedValueError() as coded:
            found = coded.code, str(coded)
        case _ if kind in _RANGE:
            found = ErrorCode.VALUE_OUT_OF_RANGE, f"{detail['msg']}; got {value}"
        case _:
            text = detail["msg"].removeprefix("Value error, ")
            found = ErrorCode.VALUE_WRONG_TYPE, f"{text}; got {value}"
    return found


class CodedValueError(ValueError):
    """A validator's refusal with its own code: raise it inside a pydantic validator."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def _did_you_mean(path: Sequence[int | str], model: type[BaseModel]) -> str:
    known = _fields_at(path[:-1], model)
    near = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5) if path else []
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known fields are {', '.join(known)}" if known else ""


def _fields_at(path: Sequence[int | str], model: type[BaseModel]) -> list[str]:
    """Return the field names possible where *path* leads in *model*."""
    schema = model.model_json_schema()
    definitions: dict[str, Any] = schema.get("$defs", {})
    options = _expand(schema, definitions)
    for part in path:
        options = [found for option in options for found in _expand(_child(option, part), definitions)]
    return sorted({name for option in options for name in option.get("properties", {})})


def _child(schema: dict[str, Any], part: int | str) -> dict[str, Any]:
    if isinstance(part, int):
        return dict(schema.get("items", {}))
    if part in schema.get("properties", {}):
        return dict(schema["properties"][part])
    other = schema.get("additionalProperties")
    return other if isinstance(other, dict) else {}


def _expand(schema: dict[str, Any], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    """Return *schema* with its reference resolved and its alternatives side by side."""
    if "$ref" in schema:
        return _expand(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions)
    alternatives = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    return [found for each in alternatives for found in _expand(each, definitions)] or [schema]


def _unreadable(code: ErrorCode, message: str) -> NoReturn:
    raise Unreadable(problem(code, message))
