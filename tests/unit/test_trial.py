"""When a new generation is good, and when it has had its time."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from device.deploy.trial import SECOND_CHANCE, Verdict, Watch, deadline, judge, looked

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
PATIENCE = timedelta(seconds=300)
RUNS = frozenset({"web@1"})


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def a_watch() -> Watch:
    return Watch(deadline=at(300), soak=timedelta(seconds=2))


def test_well_for_the_soak_without_a_break_is_good() -> None:
    watch = looked(a_watch(), well=RUNS, now=NOON)
    watch = looked(watch, well=RUNS, now=at(1))

    assert judge(watch, at(1.9)) is Verdict.WAIT
    assert judge(watch, at(2)) is Verdict.COMMIT


def test_an_illness_begins_the_soak_anew() -> None:
    watch = looked(a_watch(), well=RUNS, now=NOON)
    watch = looked(watch, well=None, now=at(1))
    watch = looked(watch, well=RUNS, now=at(1.5))

    assert judge(watch, at(3)) is Verdict.WAIT


def test_a_restart_between_two_looks_begins_the_soak_anew() -> None:
    watch = looked(a_watch(), well=RUNS, now=NOON)
    watch = looked(watch, well=frozenset({"web@2"}), now=at(1.5))

    assert judge(watch, at(3)) is Verdict.WAIT


def test_past_the_deadline_it_has_failed_unless_the_soak_is_done() -> None:
    assert judge(a_watch(), at(299)) is Verdict.WAIT
    assert judge(a_watch(), at(300)) is Verdict.GIVE_UP
    soaked = looked(a_watch(), well=RUNS, now=at(298))
    assert judge(soaked, at(300)) is Verdict.COMMIT


def test_patience_counts_from_the_switch() -> None:
    assert deadline(began=NOON, resumed_at=at(-50), patience=PATIENCE, now=at(9)) == at(300)


def test_time_off_does_not_speak_against_a_release() -> None:
    resumed = at(7200)

    assert deadline(began=NOON, resumed_at=resumed, patience=PATIENCE, now=resumed) == resumed + SECOND_CHANCE
    short = timedelta(seconds=1)
    assert deadline(began=NOON, resumed_at=resumed, patience=short, now=resumed) == resumed + short


@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6))
def test_whatever_the_clock_did_there_is_some_time_left_but_never_more_than_patience(
    began: int, resumed: int
) -> None:
    until = deadline(began=at(began), resumed_at=at(resumed), patience=PATIENCE, now=NOON)

    assert until <= NOON + PATIENCE
    if resumed >= 0:
        assert until > NOON
