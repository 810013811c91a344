"""Commands: ordered for a device, and what became of them."""

# ruff: noqa: D401 - a handler's docstring describes the operation, whose summary is the imperative

from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, Field

from cloud.api.dependencies import (
    Caller,
    CommandId,
    DeviceId,
    Parts,
    Scope,
    body,
    needs,
    query,
)
from cloud.api.envelope import ALWAYS, ASKED, GUARDED, READ, Envelope, refusals
from cloud.api.openapi import takes
from cloud.api.paging import PageQuery, before
from cloud.api.waiting import Waiting, wait_until
from cloud.feed import Ended, Watch
from cloud.services import Services
from cloud.store import commands, devices
from cloud.store.tables import CommandRow
from schemas.base import Document, Id, Message, UtcDatetime
from schemas.commands import ARGUMENTS, MAX_TIMEOUT, CommandName, CommandStatus, command_name
from schemas.errors import ErrorCode, Problem, Unreadable
from schemas.reading import CodedValueError, fit

router = APIRouter(tags=["commands"])


def _known(word: str) -> str:
    try:
        return command_name(word).value
    except Unreadable as error:
        raise CodedValueError(ErrorCode.COMMAND_UNKNOWN, error.problem.message) from None


class CommandOrder(Document):
    """A command to be carried out once."""

    name: Annotated[
        str, AfterValidator(_known), Field(json_schema_extra={"enum": [each.value for each in CommandName]})
    ]
    arguments: Annotated[dict[str, Any], Field(description="What fits `name`; see the examples.")] = {}
    timeout: Annotated[
        float,
        Field(
            ge=1, le=MAX_TIMEOUT.total_seconds(), description="Seconds after which it is not begun any more."
        ),
    ] = 60
    id: Annotated[
        Id | None,
        Field(description="Made by the caller, so that a repeat of the request is the same command."),
    ] = None


class CommandView(Message):
    """A command and how far it has come."""

    id: Id
    device: Id
    name: str
    arguments: dict[str, Any]
    status: CommandStatus
    final: Annotated[
        bool,
        Field(
            description="Whether nothing more is waited for: the device's last word is in, or none came in"
            " time (`unanswered`, which a late last word still replaces)."
        ),
    ]
    detail: str
    data: Annotated[dict[str, Any] | None, Field(description="What was asked for: log lines, inspection.")]
    error: Problem | None
    issued_at: UtcDatetime
    issued_by: str
    deadline: UtcDatetime
    updated_at: UtcDatetime
    sends: Annotated[int, Field(description="How often the broker took it from the cloud.")]


class CommandPage(Message):
    """Some commands, the newest first; `next` goes into `after`."""

    commands: list[CommandView]
    next: UtcDatetime | None


_EXAMPLES = {
    "restart": {"name": "restart", "arguments": {"service": "web"}, "timeout": 30},
    "logs": {"name": "logs", "arguments": {"service": "web", "tail": 50}},
    "ping": {"name": "ping", "arguments": {"echo": "hello"}},
    "inspect": {"name": "inspect", "arguments": {}},
    "repeatable": {
        "name": "stop",
        "arguments": {"service": "web"},
        "id": "5e0c1c7a-52a8-4b63-9a30-6a52e1a1b0d2",
    },
}


@router.post(
    "/edge/devices/{device}/commands",
    operation_id="order_command",
    summary="Order a command",
    status_code=202,
    responses={
        200: {"model": Envelope[CommandView], "description": "With `wait`: the command has ended."},
        **refusals(
            *GUARDED,
            *READ,
            ErrorCode.DEVICE_BAD_ID,
            ErrorCode.DEVICE_UNKNOWN,
            ErrorCode.COMMAND_UNKNOWN,
            ErrorCode.COMMAND_ID_CONFLICT,
            *ALWAYS,
        ),
    },
    openapi_extra=takes(body=CommandOrder, examples=_EXAMPLES, query=Waiting),
)
async def order_command(
    *,
    request: Request,
    response: Response,
    caller: Annotated[Caller, needs(Scope.COMMANDS_WRITE)],
    device: DeviceId,
    waiting: Annotated[Waiting, query(Waiting)],
    order: Annotated[CommandOrder, body(CommandOrder)],
    services: Parts,
) -> Envelope[CommandView]:
    """Stored first, then sent, and sent again with the same id until the device answers or the time is up.

    The device carries an id out once, however often it arrives. Give your own `id` (a new UUID4) and the
    request may be repeated after a lost answer: the same id with the same content is the same command, with
    other content it is refused (`command.id_conflict`). The answer is 200 if the command ended within `wait`,
    else 202: watch `GET /edge/commands/{id}`.
    """
    name = CommandName(order.name)
    _check_arguments(name, order.arguments)
    command = order.id or uuid4()
    with services.feed.watch(Ended(command)) as watch:
        ordered = await services.commander.order(
            device,
            name,
            order.arguments,
            timeout=order.timeout,
            by=caller.signature,
            command=command,
        )
        row = await _newest(services, ordered, watch, request, waiting.wait)
    view = _view(row)
    response.status_code = 200 if view.final else 202
    return Envelope[CommandView](data=view, message=_sentence(view))


@router.get(
    "/edge/commands/{command}",
    operation_id="get_command",
    summary="Show one command",
    dependencies=[needs(Scope.COMMANDS_READ)],
    responses=refusals(*GUARDED, *ASKED, ErrorCode.COMMAND_UNKNOWN, *ALWAYS),
    openapi_extra=takes(query=Waiting),
)
async def get_command(
    request: Request, command: CommandId, waiting: Annotated[Waiting, query(Waiting)], services: Parts
) -> Envelope[CommandView]:
    """With `wait`, answers as soon as the command has ended."""
    with services.feed.watch(Ended(command)) as watch:
        async with services.database.session() as session:
            row = await commands.require(session, command)
        view = _view(await _newest(services, row, watch, request, waiting.wait))
    return Envelope[CommandView](data=view, message=_sentence(view))


@router.get(
    "/edge/devices/{device}/commands",
    operation_id="list_commands",
    summary="List a device's commands",
    dependencies=[needs(Scope.COMMANDS_READ)],
    responses=refusals(*GUARDED, *ASKED, ErrorCode.DEVICE_BAD_ID, ErrorCode.DEVICE_UNKNOWN, *ALWAYS),
    openapi_extra=takes(query=PageQuery),
)
async def list_commands(
    device: DeviceId, asked: Annotated[PageQuery, query(PageQuery)], services: Parts
) -> Envelope[CommandPage]:
    """The newest first, those ordered by topic too."""
    async with services.database.session() as session:
        await devices.require(session, device)
        rows = await commands.listing(session, device, before=before(asked), limit=asked.limit)
    following = rows[-1].issued_at if len(rows) == asked.limit else None
    return Envelope[CommandPage](data=CommandPage(commands=[_view(row) for row in rows], next=following))


def _check_arguments(name: CommandName, arguments: dict[str, Any]) -> None:
    """Refuse arguments that do not fit *name*, naming the field as it stands in the body."""
    try:
        fit(ARGUMENTS[name], arguments)
    except Unreadable as error:
        told = error.problem
        field = f"arguments.{told.field}" if told.field else "arguments"
        message = f"arguments.{told.message}" if told.field else f"arguments: {told.message}"
        raise Unreadable(told.model_copy(update={"field": field, "message": message})) from error


async def _newest(
    services: Services, row: CommandRow, watch: Watch, request: Request, seconds: float
) -> CommandRow:
    async def look() -> CommandRow:
        async with services.database.session() as session:
            return await commands.require(session, row.id)

    return await wait_until(
        look, _over, first=row, watch=watch, feed=services.feed, request=request, seconds=seconds
    )


def _over(row: CommandRow) -> bool:
    status = CommandStatus(row.status)
    return status.final or status is CommandStatus.UNANSWERED


def _view(row: CommandRow) -> CommandView:
    return CommandView(
        id=row.id,
        device=row.device,
        name=row.name,
        arguments=row.arguments,
        status=CommandStatus(row.status),
        final=_over(row),
        detail=row.detail,
        data=row.data,
        error=Problem.model_validate(row.error) if row.error else None,
        issued_at=row.issued_at,
        issued_by=row.issued_by,
        deadline=row.deadline,
        updated_at=row.updated_at,
        sends=row.sends,
    )


def _sentence(view: CommandView) -> str:
    told = f": {view.error}" if view.error else f": {view.detail}" if view.detail else ""
    return f"{view.name} {view.status}{told}"
