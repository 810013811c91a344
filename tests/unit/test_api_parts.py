"""The parts of the REST door that need no server."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.api.attempts import ALLOWED, WINDOW, Attempts
from cloud.api.callers import TRUSTED, Callers, Key
from cloud.api.dependencies import fit_query, forms_of
from cloud.api.timespans import duration_of, moment_of
from cloud.api.waiting import Waiting
from cloud.consumers.sightings import Sightings
from cloud.feed import Ended, Feed, Told
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


async def woken(waiting: Any, patience: float = 5) -> bool:
    """Return whether *waiting* ends long before its own time is up."""
    try:
        await asyncio.wait_for(waiting, timeout=patience)
    except TimeoutError:
        return False
    return True


async def test_news_wakes_those_who_watch_for_it_and_nobody_else() -> None:
    feed, device, other = Feed(), uuid4(), uuid4()
    with (
        feed.watch(Ended(device)) as first,
        feed.watch(Ended(device)) as second,
        feed.watch(Told(other)) as third,
    ):
        feed.notify(Told(), Told(device), Ended(device))

        assert await woken(first.wait(60))
        assert await woken(second.wait(60))
        assert not await woken(third.wait(60), patience=0.05)
        feed.notify()
        assert await woken(third.wait(60))


async def test_what_happened_between_the_look_and_the_wait_is_not_missed_and_told_once() -> None:
    feed = Feed()
    with feed.watch(Told()) as watch:
        feed.notify(Told())

        assert await woken(watch.wait(60))
        assert not await woken(watch.wait(60), patience=0.05)


async def test_a_closed_feed_keeps_nobody_waiting() -> None:
    feed = Feed()
    with feed.watch(Told()) as before:
        feed.close()

        assert feed.closed
        assert await woken(before.wait(60))
    with feed.watch(Told()) as after:
        assert await woken(after.wait(60))


async def test_a_wait_ends_when_its_time_is_up() -> None:
    with Feed().watch(Told()) as watch:
        assert await woken(watch.wait(0.01))


KEY = Key("3f9a0c1b2d4e", "board", frozenset({"*"}), NOON + timedelta(seconds=2))


def test_a_key_found_good_is_trusted_for_a_moment_and_not_beyond_its_end() -> None:
    callers, lasting = Callers(), replace(KEY, expires_at=None)
    callers.remember("lasting", lasting, NOON, since=0)
    callers.remember("ending", KEY, NOON, since=0)

    def trusted(presented: str, seconds: float) -> Key | None:
        return callers.get(presented, NOON + timedelta(seconds=seconds))

    assert trusted("lasting", 0) == trusted("lasting", 2.9) == lasting
    assert trusted("lasting", TRUSTED.total_seconds()) is None
    assert trusted("lasting", -1) is None, "the clock was set back"
    assert trusted("ending", 1.9) == KEY
    assert trusted("ending", 2) is None
    assert trusted("another", 0) is None


def test_a_key_is_not_remembered_that_was_revoked_while_the_database_was_asked() -> None:
    callers = Callers()
    callers.remember("known", KEY, NOON, since=callers.revocations)
    before = callers.revocations
    callers.revoked()
    callers.remember("asked", KEY, NOON, since=before)

    assert callers.get("known", NOON) is None
    assert callers.get("asked", NOON) is None


def test_a_row_is_told_of_a_device_once_a_second() -> None:
    sightings, device, other = Sightings(), uuid4(), uuid4()
    assert sightings.due([device, other], NOON) == {device, other}
    sightings.told([device], NOON)

    assert sightings.due([device, other], NOON + timedelta(seconds=0.9)) == {other}
    assert sightings.due([device], NOON + timedelta(seconds=1)) == {device}
    assert sightings.due([device], NOON - timedelta(seconds=1)) == {device}, "the clock was set back"
