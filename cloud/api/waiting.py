"""`?wait=seconds`: answer when something has happened, or when the time is up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Annotated, TypeVar

from fastapi import Request
from pydantic import Field

from cloud.feed import Feed, Watch
from schemas.base import Document

LOOK_EVERY = 1.0
"""Seconds between looks at the database: changes by other processes do not wake us."""

Found = TypeVar("Found")


class Waiting(Document):
    """How long the caller is ready to wait."""

    wait: Annotated[
        float,
        Field(ge=0, le=60, description="Answer at the latest after so many seconds; 0 answers at once."),
    ] = 0


async def wait_until(
    look: Callable[[], Awaitable[Found]],
    done: Callable[[Found], bool],
    *,
    first: Found,
    watch: Watch,
    feed: Feed,
    request: Request,
    seconds: float,
) -> Found:
    """Return what *look* answers, as soon as it is *done* or *seconds* have passed.

    It is looked when *watch* wakes us, which was taken before *first* was seen. Ends early when the client
    went away or the server stops.
    """
    end = monotonic() + seconds
    found = first
    while not done(found) and not feed.closed:
        left = end - monotonic()
        if left <= 0 or await request.is_disconnected():
            break
        await watch.wait(min(LOOK_EVERY, left))
        found = await look()
    return found
