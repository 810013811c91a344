"""Presence survives lost, doubled and shuffled messages."""

from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from schemas.presence import Online, Presence

BOOT = UUID("6f9d7b1a-4f5e-4c8e-9a43-2f6f1f2f3a4b")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

words = st.builds(
    lambda session, status: Presence(
        status=status, session=session, boot=BOOT, at=NOON + timedelta(minutes=session)
    ),
    st.integers(0, 6),
    st.sampled_from(Online),
)


def told(story: list[Presence]) -> Presence | None:
    """Return what a reader believes that takes only news."""
    believed = None
    for word in story:
        believed = word if word.is_news(believed) else believed
    return believed


@given(st.lists(words), st.randoms(use_true_random=False))
def test_shuffled_messages_end_in_the_same_state(story: list[Presence], random: Random) -> None:
    shuffled = sorted(story, key=lambda _: random.random())

    assert told(shuffled) == told(story)


@given(st.lists(words, min_size=1))
def test_a_story_told_twice_ends_as_told_once(story: list[Presence]) -> None:
    assert told([*story, *story]) == told(story)


@given(st.lists(words, min_size=1))
def test_the_newest_session_counts_and_its_end_is_its_last_word(story: list[Presence]) -> None:
    newest = max(word.session for word in story)
    ended = any(word.session == newest and word.status is Online.OFFLINE for word in story)

    believed = told(story)

    assert believed is not None
    assert (believed.session, believed.status is Online.OFFLINE) == (newest, ended)


@given(words)
def test_a_repeated_word_is_no_news(word: Presence) -> None:
    assert word.is_news(None)
    assert not word.is_news(word)


def test_the_will_of_an_older_session_does_not_end_a_newer_one() -> None:
    now = Presence(status=Online.ONLINE, session=2, boot=BOOT, at=NOON)
    will = Presence(status=Online.OFFLINE, session=1, boot=BOOT, at=NOON + timedelta(hours=1))

    assert not will.is_news(now)
