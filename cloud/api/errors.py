"""Whatever goes wrong on the way becomes the one envelope with the one code."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from cloud.api.envelope import failed
from schemas.errors import ErrorCode, FleetError, Problem, problem, shown


class TooManyAttempts(FleetError):  # noqa: N818 - says what happened
    """Refused for a while; `retry_after` is in whole seconds."""

    def __init__(self, told: Problem, retry_after: int) -> None:
        super().__init__(told)
        self.retry_after = retry_after


def install(app: FastAPI) -> None:
    """Make *app* answer every error in the envelope."""
    app.add_exception_handler(FleetError, _refused)
    app.add_exception_handler(HTTPException, _of_the_frame)
    app.add_exception_handler(RequestValidationError, _misread)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, FleetError)  # noqa: S101 - by registration
    headers = {}
    if error.code.startswith("auth.") and error.status == 401:  # noqa: PLR2004
        said = "" if error.code == ErrorCode.AUTH_MISSING else ', error="invalid_token"'
        headers["WWW-Authenticate"] = f'Bearer realm="fleetline"{said}'
    if error.code == ErrorCode.AUTH_SCOPE:
        headers["WWW-Authenticate"] = 'Bearer realm="fleetline", error="insufficient_scope"'
    if isinstance(error, TooManyAttempts):
        headers["Retry-After"] = str(error.retry_after)
    elif error.status == 503:  # noqa: PLR2004
        headers["Retry-After"] = "5"
    return failed(error.problem, headers)


async def _of_the_frame(request: Request, error: Exception) -> Response:
    """Answer what the frame itself refuses: an unknown path, a method the path does not take."""
    assert isinstance(error, HTTPException)  # noqa: S101 - by registration
    path = request.url.path
    match error.status_code:
        case 404:
            message = f"there is nothing at {shown(path)}; GET /api/v1/openapi.json lists what there is"
            return failed(problem(ErrorCode.ROUTE_UNKNOWN, message))
        case 405:
            allowed = ", ".join(_methods(request.app, path))
            message = f"{shown(path)} does not take {request.method}; it takes {allowed}"
            return failed(problem(ErrorCode.METHOD_NOT_ALLOWED, message), {"Allow": allowed})
        case _:
            return failed(problem(ErrorCode.PAYLOAD_JSON_SYNTAX, str(error.detail)))


async def _misread(_: Request, error: Exception) -> Response:
    """Answer for a parameter the frame itself read; ours are read by `dependencies`."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - by registration
    first: dict[str, Any] = error.errors()[0]
    field = ".".join(map(str, first["loc"][1:]))
    return failed(problem(ErrorCode.VALUE_WRONG_TYPE, f"{field}: {first['msg']}", field=field))


def _methods(app: FastAPI, path: str) -> list[str]:
    """Return every method *path* takes, over all of its routes."""
    found: set[str] = set()
    for template, operations in app.openapi()["paths"].items():
        if compile_path(template)[0].match(path):
            found |= {method.upper() for method in operations}
    return sorted(found) or ["GET"]
