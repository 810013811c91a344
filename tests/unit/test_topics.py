"""The topic grammar prints and parses the same language."""

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import topics
from schemas.delivery import DELIVERY
from schemas.errors import Unreadable
from schemas.topics import Topic, Topics

TOPICS = Topics()
DEVICE = UUID("0b6f2f6e-7d0f-4d5a-9c39-0d6f3e3b9a11")
SEGMENT = r"[A-Za-z0-9_.-]{1,20}"

ids = st.uuids(version=4)
slugs = st.from_regex(r"\A[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?\Z")
roots = st.from_regex(rf"\A{SEGMENT}(/{SEGMENT}){{0,3}}\Z")
KINDS: dict[type[Topic], st.SearchStrategy[Topic]] = {
    topics.Presence: st.builds(topics.Presence, ids),
    topics.Telemetry: st.builds(topics.Telemetry, ids, slugs),
    topics.Event: st.builds(topics.Event, ids, slugs),
    topics.Alert: st.builds(topics.Alert, ids, slugs),
    topics.Reported: st.builds(topics.Reported, ids),
    topics.Result: st.builds(topics.Result, ids, slugs, ids),
    topics.Chunk: st.builds(topics.Chunk, ids, ids),
    topics.Desired: st.builds(topics.Desired, ids),
    topics.Config: st.builds(topics.Config, ids),
    topics.Command: st.builds(topics.Command, ids, slugs, ids),
    topics.Ack: st.builds(topics.Ack, ids, slugs),
}
every_topic = st.one_of(*KINDS.values())


@st.composite
def nearly_topics(draw: st.DrawFn) -> str:
    """Return the text of a topic with some part of it cut out and something put in."""
    text = TOPICS.print(draw(every_topic))
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 5)))
    junk = draw(st.text(st.sampled_from("/+#$ aA0-_\x00\n%uü") | st.characters(), max_size=3))
    return text[:start] + junk + text[end:]


def test_every_kind_of_topic_has_a_strategy_here() -> None:
    assert KINDS.keys() == DELIVERY.keys()


@given(roots, every_topic)
def test_a_printed_topic_parses_back(root: str, topic: Topic) -> None:
    grammar = Topics(root)

    assert grammar.parse(grammar.print(topic)) == topic


@given(nearly_topics() | st.text())
def test_any_text_is_a_topic_that_prints_back_or_is_unreadable(text: str) -> None:
    try:
        topic = TOPICS.parse(text)
    except Unreadable:
        return
    assert TOPICS.print(topic) == text


@given(every_topic, every_topic)
def test_two_topics_never_share_a_text(one: Topic, other: Topic) -> None:
    assert (TOPICS.print(one) == TOPICS.print(other)) == (one == other)


@given(every_topic)
def test_a_filter_matches_its_kind_and_no_other(topic: Topic) -> None:
    text = TOPICS.print(topic)
    kinds = [kind for kind in KINDS if issubclass(kind, topics.UpTopic)]

    assert [kind for kind in kinds if matches(TOPICS.every(kind), text)] == [
        kind for kind in kinds if isinstance(topic, kind)
    ]
    assert matches(TOPICS.down(topic.device), text) == isinstance(topic, topics.DownTopic)
    assert not matches(TOPICS.down(uuid4()), text)


def matches(pattern: str, topic: str) -> bool:
    """Match by the rules of MQTT 5, section 4.7."""
    wanted, given_ = pattern.split("/"), topic.split("/")
    for index, word in enumerate(wanted):
        if word == "#":
            return True
        if index >= len(given_) or word not in {"+", given_[index]}:
            return False
    return len(wanted) == len(given_)


@pytest.mark.parametrize("word", ["", "A", "a/b", "+", "#", "a b", "-a", "a-", "a" * 64, "a\n", "ü"])
def test_a_word_that_does_not_parse_is_not_printed(word: str) -> None:
    with pytest.raises((ValueError, Unreadable)):
        TOPICS.print(topics.Telemetry(DEVICE, word))


@pytest.mark.parametrize("root", ["", "/", "a/", "/a", "a//b", "a+", "#", "a b", "a\n", "x" * 101])
def test_a_root_that_is_no_plain_path_is_refused(root: str) -> None:
    with pytest.raises(ValueError, match="topic root"):
        Topics(root)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("fleet/v2/x/up/presence", "topic.unknown"),
        ("fleet/v1/nobody/up/presence", "device.bad_id"),
        (f"fleet/v1/{str(DEVICE).upper()}/up/presence", "device.bad_id"),
        ("fleet/v1/00000000-0000-1000-8000-000000000000/up/presence", "device.bad_id"),
        (f"fleet/v1/{DEVICE}/up/nothing", "topic.unknown"),
        (f"fleet/v1/{DEVICE}/up/presence/", "topic.unknown"),
        (f"fleet/v1/{DEVICE}/down/command/restart/1", "topic.unknown"),
        (f"fleet/v1/{DEVICE}/up/telemetry/{'a' * 600}", "topic.unknown"),
    ],
)
def test_what_is_wrong_with_a_topic_has_its_code(text: str, code: str) -> None:
    with pytest.raises(Unreadable) as caught:
        TOPICS.parse(text)

    assert caught.value.code == code
