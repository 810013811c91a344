"""What handlers ask for: the wired parts, the caller, a read body, read query parameters, a device's id."""

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, TypeVar, cast
from uuid import UUID

from fastapi import Depends, Path, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, TypeAdapter, ValidationError

from cloud.api.callers import Callers, Key
from cloud.api.openapi import parameters
from cloud.services import Services
from cloud.store import keys
from schemas.base import Document, Id
from schemas.errors import ErrorCode, FleetError, Unreadable, problem, refuse, shown
from schemas.reading import fit, read

MAX_BODY = 1024 * 1024
"""Bytes of one request's body."""
_INTEGER = re.compile(r"-?[0-9]{1,15}", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?", re.ASCII)
_LONG = 64 * 1024
"""Bodies above this are parsed off the event loop."""

Model = TypeVar("Model", bound=BaseModel)
Asked = TypeVar("Asked", bound=Document)


# All dependencies are coroutines, those that wait for nothing too: the frame runs others in threads.


async def _services(request: Request) -> Services:
    return cast("Services", request.app.state.services)


Parts = Annotated[Services, Depends(_services)]


async def _callers(request: Request) -> Callers:
    return cast("Callers", request.app.state.callers)


Remembered = Annotated[Callers, Depends(_callers)]


class Scope(StrEnum):
    """What a key may be allowed to do."""

    DEVICES_READ = "devices:read"
    DEVICES_WRITE = "devices:write"
    COMMANDS_READ = "commands:read"
    COMMANDS_WRITE = "commands:write"
    DEPLOY_READ = "deploy:read"
    DEPLOY_WRITE = "deploy:write"
    CONFIG_WRITE = "config:write"
    METRICS_READ = "metrics:read"
    ENROLMENT_WRITE = "enrolment:write"
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    EVENTS_READ = "events:read"
    ALL = "*"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the key's id and name, and what it may do."""

    key: str
    name: str
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        """Return whether the key holds *scope*, itself or by `*`."""
        return scope in self.scopes or Scope.ALL in self.scopes

    @property
    def signature(self) -> str:
        """How orders name the one who gave them."""
        return f"{self.name} (key {self.key})"


_BEARER = HTTPBearer(
    scheme_name="key",
    description="An API key, `flk_<id>_<secret>`; the list names the scope the operation needs.",
    auto_error=False,
)


def needs(scope: Scope) -> Any:
    """Return the dependency that answers the `Caller`, or refuses one whose key lacks *scope*."""

    async def caller(
        services: Parts,
        callers: Remembered,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER, scopes=[scope.value])],
    ) -> Caller:
        if bearer is None:
            refuse(ErrorCode.AUTH_MISSING, "send an API key: `Authorization: Bearer flk_...`")
        key = await _key(services, callers, bearer.credentials)
        found = Caller(key.id, key.name, key.scopes)
        if not found.may(scope):
            held = ", ".join(sorted(found.scopes)) or "none"
            refuse(ErrorCode.AUTH_SCOPE, f"this needs the scope {scope}; the key {found.key} has {held}")
        return found

    return Depends(caller)


async def _key(services: Services, callers: Callers, presented: str) -> Key:
    """Return the key *presented*, found good now or a moment ago. Raises as `keys.verify` does."""
    now, since = services.now(), callers.revocations
    if (known := callers.get(presented, now)) is not None:
        return known
    async with services.database.session() as session:
        row = await keys.verify(session, presented, now)
    key = Key(row.id, row.name, frozenset(row.scopes), row.expires_at)
    callers.remember(presented, key, now, since=since)
    return key


async def still_let_in(services: Services, request: Request, scope: Scope) -> bool:
    """Return whether the key that *request* came with is good now, for answers that go on."""
    presented = request.headers.get("authorization", "").partition(" ")[2].strip()
    try:
        key = await _key(services, await _callers(request), presented)
    except FleetError as error:
        if error.code in {ErrorCode.AUTH_INVALID, ErrorCode.AUTH_EXPIRED}:
            return False
        raise
    return Caller(key.id, key.name, key.scopes).may(scope)


def body(model: type[Model]) -> Any:
    """Return the dependency that answers the request's JSON body as *model*; declare it after `needs`."""

    async def read_body(request: Request) -> Model:
        content = await _whole(request)
        if len(content) < _LONG:
            return read(model, content, limit=MAX_BODY)
        return await asyncio.to_thread(read, model, content, limit=MAX_BODY)

    return Depends(read_body)


async def _whole(request: Request) -> bytes:
    """Return the body, refused at the first byte too many."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > MAX_BODY:
        _too_large(f"{announced[:20]} bytes are announced")
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY:
            _too_large(f"more than {MAX_BODY} bytes came")
    return bytes(content)


def _too_large(what: str) -> None:
    refuse(ErrorCode.PAYLOAD_TOO_LARGE, f"{what}; the limit is {MAX_BODY}")


def query(model: type[Asked]) -> Any:
    """Return the dependency that answers the query parameters as *model*.

    A list takes `name=a&name=b` and `name=a,b`; anything else may be given once.
    """
    forms = forms_of(model)

    async def read_query(request: Request) -> Asked:
        return fit_query(model, request.query_params.multi_items(), forms)

    return Depends(read_query)


def forms_of(model: type[BaseModel]) -> dict[str, str]:
    """Return the JSON type of each query parameter of *model*."""
    return {each["name"]: each["schema"].get("type", "string") for each in parameters(model)}


def fit_query(model: type[Asked], items: Iterable[tuple[str, str]], forms: Mapping[str, str]) -> Asked:
    """Return query parameters as *model*. Raises `Unreadable`."""
    values: dict[str, Any] = {}
    for name, text in items:
        if forms.get(name) == "array":
            values.setdefault(name, []).extend(text.split(","))
        elif name in values:
            message = f"{name}: given twice; give it once"
            raise Unreadable(problem(ErrorCode.VALUE_WRONG_TYPE, message, field=name[:300]))
        else:
            values[name] = _value(text, forms.get(name, "string"))
    return fit(model, values)


def _value(text: str, form: str) -> Any:
    """Return what *text* says in *form*, or *text* itself where it says nothing such."""
    match form:
        case "integer" if _INTEGER.fullmatch(text):
            return int(text)
        case "number" if _NUMBER.fullmatch(text):
            return float(text)
        case "boolean" if text in {"true", "false"}:
            return text == "true"
        case _:
            return text


class _Nothing(Document):
    """No parameters."""


NO_QUERY = query(_Nothing)
"""For operations without query parameters: an unknown one is a typing error there too."""


_ID: TypeAdapter[UUID] = TypeAdapter(Id)


def read_id(text: str, code: ErrorCode, field: str) -> UUID:
    """Return *text* as a UUID4 in its one spelling. Raises `Unreadable` with *code*."""
    try:
        found = _ID.validate_python(text)
    except ValidationError:
        found = None
    if found is None or str(found) != text.lower():
        message = f"{field}: {shown(text)} is not a UUID4 like 0b6f2f6e-7d0f-4d5a-9c39-0d6f3e3b9a11"
        raise Unreadable(problem(code, message, field=field))
    return found


def _path_id(description: str) -> Any:
    return Path(description=description, json_schema_extra={"format": "uuid"})


async def _device_id(device: Annotated[str, _path_id("The device's id.")]) -> UUID:
    return read_id(device, ErrorCode.DEVICE_BAD_ID, "device")


async def _command_id(command: Annotated[str, _path_id("The command's id.")]) -> UUID:
    return read_id(command, ErrorCode.VALUE_WRONG_TYPE, "command")


async def _deployment_id(deployment: Annotated[str, _path_id("The deployment's id.")]) -> UUID:
    return read_id(deployment, ErrorCode.VALUE_WRONG_TYPE, "deployment")


async def _release_id(release: Annotated[str, _path_id("The release's id.")]) -> UUID:
    return read_id(release, ErrorCode.VALUE_WRONG_TYPE, "release")


DeviceId = Annotated[UUID, Depends(_device_id)]
CommandId = Annotated[UUID, Depends(_command_id)]
DeploymentId = Annotated[UUID, Depends(_deployment_id)]
ReleaseId = Annotated[UUID, Depends(_release_id)]
