"""`?wait=seconds`: answer when something has happened, or when the time is up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Annotated, TypeVar

from fastapi import Request
from pydantic import Field

from cloud.feed import Feed
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
    request: Request,
    feed: Feed,
    seconds: float,
) -> Found:
    """Return what *look* answers, as soon as it is *done* or *seconds* have passed.

    Ends early when the client went away or the server stops.
    """
    end = monotonic() + seconds
    while True:
        version = feed.version
        found = await look()
        left = end - monotonic()
        if done(found) or left <= 0 or feed.closed or await request.is_disconnected():
            return found
        await feed.wait(min(LOOK_EVERY, left), since=version)
