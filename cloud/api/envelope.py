"""The one shape of every answer: `{"status", "data", "message"}`, and `code` where something was refused."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from schemas.errors import MEANING, ErrorCode, Problem, status_of

Data = TypeVar("Data")


class Envelope(BaseModel, Generic[Data]):
    """An answer that carries what was asked for."""

    status: Literal["ok"] = "ok"
    data: Data
    message: Annotated[str, Field(description="A sentence for people; may be empty.")] = ""


class Failure(BaseModel):
    """An answer that says why not. `code` is stable, `message` is for people."""

    status: Literal["error"] = "error"
    data: None = None
    message: Annotated[str, Field(examples=["timout: there is no such field; did you mean 'timeout'?"])]
    code: Annotated[str, Field(examples=["field.unknown"], description="See docs/errors.md.")]
    field: Annotated[
        str, Field(examples=["timout"], description="Path of what did not fit; absent where none is known.")
    ] = ""


def failed(problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return *problem* as an answer with the status of its code."""
    content: dict[str, Any] = {
        "status": "error",
        "data": None,
        "message": problem.message,
        "code": problem.code,
    }
    if problem.field:
        content["field"] = problem.field
    return JSONResponse(content, status_code=status_of(problem.code), headers=headers)


def refusals(*codes: ErrorCode) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses for *codes*, one per status, with an example of each code."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for code in dict.fromkeys(codes):
        meaning = MEANING[code]
        response = by_status.setdefault(
            meaning.status,
            {"model": Failure, "description": "", "content": {"application/json": {"examples": {}}}},
        )
        response["description"] = f"{response['description']}\n\n`{code}`: {meaning.text}".strip()
        response["content"]["application/json"]["examples"][code.value] = {
            "value": {"status": "error", "data": None, "message": meaning.text, "code": code.value}
        }
    return by_status


ALWAYS = (ErrorCode.STORE_UNREACHABLE, ErrorCode.INTERNAL)
"""What any operation may answer."""
GUARDED = (ErrorCode.AUTH_MISSING, ErrorCode.AUTH_INVALID, ErrorCode.AUTH_EXPIRED, ErrorCode.AUTH_SCOPE)
"""What an operation that needs a key may answer."""
ASKED = (ErrorCode.FIELD_UNKNOWN, ErrorCode.VALUE_WRONG_TYPE, ErrorCode.VALUE_OUT_OF_RANGE)
"""What an operation may answer to its query parameters."""
READ = (
    ErrorCode.PAYLOAD_EMPTY,
    ErrorCode.PAYLOAD_NOT_UTF8,
    ErrorCode.PAYLOAD_JSON_SYNTAX,
    ErrorCode.PAYLOAD_DUPLICATE_KEY,
    ErrorCode.PAYLOAD_TOO_DEEP,
    ErrorCode.PAYLOAD_TOO_LARGE,
    ErrorCode.FIELD_MISSING,
    ErrorCode.VALUE_NOT_FINITE,
    ErrorCode.VALUE_BAD_CHARACTER,
    *ASKED,
)
"""What an operation may answer to its body."""
