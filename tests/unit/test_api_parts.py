"""The parts of the REST door that need no server."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.api.attempts import ALLOWED, WINDOW, Attempts
from cloud.api.dependencies import fit_query, forms_of
from cloud.api.error_page import error_page
from cloud.api.timespans import duration_of, moment_of
from cloud.api.waiting import Waiting
from cloud.feed import Feed
from schemas.errors import ErrorCode, FleetError

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("2.5", 2.5), ("29.999999123456789", 29.999999123456789), ("1e-05", 1e-05), ("60", 60)],
)
def test_a_wait_may_be_written_as_any_number(text: str, seconds: float) -> None:
    assert fit_query(Waiting, [("wait", text)], forms_of(Waiting)).wait == seconds


@pytest.mark.parametrize("text", ["", " 1", "1 ", "nan", "inf", "0x1", "1_0", "61", "-1", "\u0661", "1e99"])
def test_what_is_no_such_number_is_refused(text: str) -> None:
    with pytest.raises(FleetError):
        fit_query(Waiting, [("wait", text)], forms_of(Waiting))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOON),
        ("-15m", NOON - timedelta(minutes=15)),
        ("-2w", NOON - timedelta(weeks=2)),
        ("2026-01-31T13:00:00+01:00", NOON),
        ("2026-01-31T13:00:00 01:00", NOON),
        ("2026-01-31T12:00Z", NOON),
    ],
)
def test_a_time_is_read_as_people_write_it(text: str, expected: datetime) -> None:
    assert moment_of(text, "start", NOON) == expected


def test_a_duration_over_a_century_is_refused() -> None:
    with pytest.raises(FleetError) as caught:
        duration_of("9999999w", "every")

    assert caught.value.code == ErrorCode.VALUE_OUT_OF_RANGE


@given(gaps=st.lists(st.integers(0, 30), max_size=40))
def test_no_address_gets_more_refusals_in_a_window_than_allowed(gaps: list[int]) -> None:
    attempts, now, refused = Attempts(), NOON, []
    for gap in gaps:
        now += timedelta(seconds=gap)
        if attempts.seconds_to_wait("192.0.2.1", now) == 0:
            attempts.note("192.0.2.1", now)
            refused.append(now)
        assert sum(now - moment < WINDOW for moment in refused) <= ALLOWED


def test_who_waits_as_told_may_try_again_and_others_need_not_wait() -> None:
    attempts = Attempts()
    for _ in range(ALLOWED):
        attempts.note("2001:db8::1", NOON)

    wait = attempts.seconds_to_wait("2001:db8::2", NOON)

    assert wait == 60
    assert attempts.seconds_to_wait("2001:db8:1::1", NOON) == 0
    assert attempts.seconds_to_wait("2001:db8::1", NOON + timedelta(seconds=wait)) == 0


async def woken(waiting: Any) -> bool:
    """Return whether *waiting* ends long before its own time is up."""
    try:
        await asyncio.wait_for(waiting, timeout=5)
    except TimeoutError:
        return False
    return True


async def test_a_feed_wakes_everyone_who_waits() -> None:
    feed = Feed()
    async with asyncio.TaskGroup() as tasks:
        waits = [tasks.create_task(woken(feed.wait(60))) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        feed.notify()

    assert [wait.result() for wait in waits] == [True] * 3


async def test_what_happened_between_the_look_and_the_wait_is_not_missed() -> None:
    feed = Feed()
    version = feed.version
    feed.notify()

    assert await woken(feed.wait(60, since=version))


async def test_a_closed_feed_keeps_nobody_waiting() -> None:
    feed = Feed()
    feed.close()

    assert feed.closed
    assert await woken(feed.wait(60))


async def test_a_wait_ends_when_its_time_is_up() -> None:
    assert await woken(Feed().wait(0.01))


def test_the_page_of_error_codes_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "errors.md"

    assert page.read_text("utf-8") == error_page(), "run: python -m cloud.api.error_page > docs/errors.md"
