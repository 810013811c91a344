"""Messages that could not be read."""

# ruff: noqa: D401 - a handler's docstring describes the operation, whose summary is the imperative

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from cloud.api.dependencies import Parts, Scope, needs, query
from cloud.api.envelope import ALWAYS, ASKED, GUARDED, Envelope, refusals
from cloud.api.openapi import takes
from cloud.store import dead_letters
from cloud.store.tables import DeadLetterRow
from schemas.base import Document, Message, UtcDatetime

router = APIRouter(prefix="/edge/dead-letters", tags=["events"])
SHOWN = 4096
"""Bytes of a payload that a list shows."""


class DeadLetterQuery(Document):
    """Which page, and how long."""

    limit: Annotated[int, Field(ge=1, le=1000, description="Items on one page.")] = 100
    after: Annotated[
        int, Field(ge=1, le=2**49, description="Where the page starts: `next` of the page before.")
    ] = 2**49


class DeadLetterView(Message):
    """One message that could not be read, and why."""

    id: int
    at: UtcDatetime
    topic: str
    code: str
    message: str
    size: Annotated[int, Field(description="Bytes of the payload.")]
    payload: Annotated[str, Field(description=f"Its first {SHOWN} bytes as text; others escaped.")]


class DeadLetterPage(Message):
    """Some messages, the newest first; `next` goes into `after`."""

    dead_letters: list[DeadLetterView]
    next: int | None


@router.get(
    "",
    operation_id="list_dead_letters",
    summary="List messages that could not be read",
    dependencies=[needs(Scope.EVENTS_READ)],
    responses=refusals(*GUARDED, *ASKED, *ALWAYS),
    openapi_extra=takes(query=DeadLetterQuery),
)
async def list_dead_letters(
    asked: Annotated[DeadLetterQuery, query(DeadLetterQuery)], services: Parts
) -> Envelope[DeadLetterPage]:
    """The newest first, each with the topic it came on and the error it met."""
    async with services.database.session() as session:
        rows = await dead_letters.listing(session, before=asked.after, limit=asked.limit)
    following = rows[-1].id if len(rows) == asked.limit else None
    found = [_view(row) for row in rows]
    return Envelope[DeadLetterPage](data=DeadLetterPage(dead_letters=found, next=following))


def _view(row: DeadLetterRow) -> DeadLetterView:
    return DeadLetterView(
        id=row.id,
        at=row.at,
        topic=row.topic,
        code=row.code,
        message=row.message,
        size=len(row.payload),
        payload=row.payload[:SHOWN].decode("utf-8", "backslashreplace"),
    )
