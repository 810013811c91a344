"""The fleet's events, while they happen: server-sent events (WHATWG HTML, 9.2)."""

import json
from collections.abc import AsyncIterator
from time import monotonic
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Request
from fastapi.responses import StreamingResponse
from pydantic import Field

from cloud.api.dependencies import Parts, Scope, needs, query, read_id, still_let_in
from cloud.api.envelope import ALWAYS, ASKED, GUARDED, refusals
from cloud.api.openapi import takes
from cloud.api.waiting import LOOK_EVERY
from cloud.feed import Told
from cloud.services import Services
from cloud.store import events
from cloud.store.events import Kind
from cloud.store.tables import EventRow
from schemas.base import Document, print_time
from schemas.errors import ErrorCode, refuse, shown

router = APIRouter(prefix="/edge/events", tags=["events"])

HEARTBEAT = 15.0
"""Seconds of silence after which a comment shows that the stream lives."""
KEY_LOOKED_AT_EVERY = 3.0
"""Seconds a stream may go on after its key was revoked or has expired."""
BATCH = 200


class EventQuery(Document):
    """Which events."""

    kind: Annotated[list[Kind], Field(max_length=20, description="Only these kinds; absent: all.")] = []
    device: Annotated[
        str | None, Field(description="Only of this device.", json_schema_extra={"format": "uuid"})
    ] = None
    command: Annotated[
        str | None,
        Field(description="Only results and chunks of this command.", json_schema_extra={"format": "uuid"}),
    ] = None
    after: Annotated[
        int | None,
        Field(
            ge=0, le=2**49, description="Begin after this event; `Last-Event-ID` wins. 0: all that are kept."
        ),
    ] = None


class EventStream(StreamingResponse):
    """An open-ended text/event-stream."""

    media_type = "text/event-stream"


_EXAMPLE = (
    "retry: 2000\n\nid: 42\nevent: presence\n"
    'data: {"id":42,"at":"2026-01-31T12:00:00Z","kind":"presence",'
    '"device":"0b6f2f6e-7d0f-4d5a-9c39-0d6f3e3b9a11","data":{"status":"online"}}\n\n'
)


@router.get(
    "",
    operation_id="follow_events",
    summary="Follow what happens",
    dependencies=[needs(Scope.EVENTS_READ)],
    response_class=EventStream,
    responses={
        200: {
            "description": "Events as they happen, until caller, key or server end the stream.",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}},
        },
        **refusals(*GUARDED, *ASKED, ErrorCode.DEVICE_BAD_ID, *ALWAYS),
    },
    openapi_extra=takes(query=EventQuery),
)
async def follow_events(
    request: Request,
    asked: Annotated[EventQuery, query(EventQuery)],
    services: Parts,
    last_event_id: Annotated[
        str,
        Header(description="The id of the last event seen: go on after it. Browsers send it by themselves."),
    ] = "",
) -> EventStream:
    """Each `data` is one JSON object `{"id", "at", "kind", "device", "data"}`; ids grow.

    Without `Last-Event-ID` or `after` the stream begins with what happens next. Events are kept for 7 days,
    chunks of logs for an hour.
    """
    device = read_id(asked.device, ErrorCode.DEVICE_BAD_ID, "device") if asked.device is not None else None
    command = (
        str(read_id(asked.command, ErrorCode.VALUE_WRONG_TYPE, "command"))
        if asked.command is not None
        else None
    )
    last = _last(last_event_id) if last_event_id else asked.after
    if last is None:
        async with services.database.session() as session:
            last = await events.newest(session)
    return EventStream(_stream(services, request, last, kinds=asked.kind, device=device, command=command))


async def _stream(
    services: Services,
    request: Request,
    last: int,
    *,
    kinds: list[Kind],
    device: UUID | None,
    command: str | None,
) -> AsyncIterator[str]:
    yield "retry: 2000\n\n"
    quiet_since = looked_at = monotonic()
    with services.feed.watch(Told(device)) as watch:
        while not services.feed.closed and not await request.is_disconnected():
            if monotonic() - looked_at >= KEY_LOOKED_AT_EVERY:
                if not await still_let_in(services, request, Scope.EVENTS_READ):
                    return
                looked_at = monotonic()
            async with services.database.session() as session:
                rows = await events.after(session, last, kinds=kinds, device=device, limit=BATCH)
            last = rows[-1].id if rows else last
            if text := "".join(_print(row) for row in rows if _of_command(row, command)):
                yield text
                quiet_since = monotonic()
            elif monotonic() - quiet_since >= HEARTBEAT:
                yield ": still here\n\n"
                quiet_since = monotonic()
            if len(rows) < BATCH:
                await watch.wait(LOOK_EVERY)


def _of_command(row: EventRow, command: str | None) -> bool:
    return command is None or row.data.get("command") == command


def _print(row: EventRow) -> str:
    content = {
        "id": row.id,
        "at": print_time(row.at),
        "kind": row.kind,
        "device": str(row.device) if row.device else None,
        "data": row.data,
    }
    return f"id: {row.id}\nevent: {row.kind}\ndata: {json.dumps(content, separators=(',', ':'))}\n\n"


def _last(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 15):  # noqa: PLR2004 - far beyond any id
        message = (
            f"Last-Event-ID: {shown(text)} is no event's id; leave it out to begin with what happens next"
        )
        refuse(ErrorCode.VALUE_WRONG_TYPE, message, field="Last-Event-ID")
    return int(text)
