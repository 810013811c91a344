"""From samples to points, and from points to line protocol that says exactly the same."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.ingest.encode import line, point_of
from cloud.metrics.checks import flaw
from cloud.metrics.protocol import END_OF_TIME, EPOCH, Point, Value
from schemas.errors import Unreadable
from schemas.telemetry import Sample

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DEVICE = UUID("0b6f2f6e-7d0f-4d5a-9c39-0d6f3e3b9a11")

names = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_.-]{0,20}\Z")
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40)
tag_values = (
    st.text(
        st.sampled_from(" ,=\\\"'#$%{}abé☃𝄞") | st.characters(exclude_categories=["Cs", "Cc"]), min_size=1
    )
    .map(lambda text: text[:100].rstrip("\\"))
    .filter(bool)
)
values: st.SearchStrategy[Value] = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
)
moments = st.datetimes(
    EPOCH.replace(tzinfo=None),
    END_OF_TIME.replace(tzinfo=None) - timedelta(microseconds=1),
    timezones=st.just(UTC),
)


@st.composite
def points(draw: st.DrawFn) -> Point:
    tags = draw(st.dictionaries(names, tag_values, max_size=4))
    fields = draw(st.dictionaries(names, values, min_size=1, max_size=4))
    point = Point(DEVICE, draw(names), tuple(sorted(tags.items())), fields, draw(moments))
    return point if flaw(point) is None else Point(DEVICE, "m", (), {"n": 1}, NOON)


@given(points())
def test_a_line_reads_back_as_its_point(point: Point) -> None:
    measurement, tags, fields, nanoseconds = parse(line(point).decode())

    assert measurement == point.measurement
    assert tags == {**dict(point.tags), "device": str(DEVICE)}
    assert fields == dict(point.fields)
    assert [type(value) for value in fields.values()] == [type(value) for value in point.fields.values()]
    assert EPOCH + timedelta(microseconds=nanoseconds // 1000) == point.at


@given(points())
def test_a_line_without_line_breaks_in_its_texts_has_none(point: Point) -> None:
    if not any("\n" in value for value in point.fields.values() if isinstance(value, str)):
        assert b"\n" not in line(point)


def parse(text: str) -> tuple[str, dict[str, str], dict[str, Value], int]:
    """Read one line by the rules of the format's documentation, character by character."""
    head, rest = cut(text, " ")
    measurement, tag_text = cut(head, ",")
    tags = {}
    while tag_text:
        pair, tag_text = cut(tag_text, ",")
        key, value = cut(pair, "=")
        tags[plain(key)] = plain(value)
    fields: dict[str, Value] = {}
    while True:
        key, rest = cut(rest, "=")
        value_text, separator, rest = field_value(rest)
        fields[plain(key)] = typed(value_text)
        if separator == " ":
            return plain(measurement), tags, fields, int(rest)


def cut(text: str, separator: str) -> tuple[str, str]:
    """Cut *text* at the first *separator* that no backslash stands before."""
    for index, character in enumerate(text):
        if character == separator and (index == 0 or text[index - 1] != "\\"):
            return text[:index], text[index + 1 :]
    return text, ""


def plain(text: str) -> str:
    for character in ", =":
        text = text.replace(f"\\{character}", character)
    return text


def field_value(text: str) -> tuple[str, str, str]:
    index, quoted = 0, False
    while index < len(text) and (quoted or text[index] not in ", "):
        if quoted and text[index] == "\\":
            index += 1
        elif text[index] == '"':
            quoted = not quoted
        index += 1
    return text[:index], text[index], text[index + 1 :]


def typed(text: str) -> Value:
    match text:
        case "true" | "false":
            return text == "true"
        case _ if text.startswith('"'):
            assert text.endswith('"')
            return text[1:-1].replace("\\\\", "\x00").replace('\\"', '"').replace("\x00", "\\")
        case _ if text.endswith("i"):
            return int(text[:-1])
        case _:
            return float(text)


def a_sample(**changes: Any) -> Sample:
    return Sample(**{"at": NOON, "measurement": "device", "fields": {"load_1m": 0.5}, **changes})


def test_the_device_of_a_point_is_the_topics_and_a_tag_of_that_name_moves_away() -> None:
    sample = a_sample(tags={"device": "sda", "exported_device": "x", "b": "1"})

    point = point_of(DEVICE, sample)

    assert point.device == DEVICE
    assert point.tags == (("b", "1"), ("exported_device", "x"), ("exported_exported_device", "sda"))


@pytest.mark.parametrize(
    ("measurement", "given", "kept"),
    [
        ("device", {"load_1m": 1}, {"load_1m": 1.0}),
        ("device", {"memory_used_bytes": 5.0}, {"memory_used_bytes": 5}),
        ("device", {"not_yet_known": 5}, {"not_yet_known": 5}),
        ("service", {"running": True, "health": "none"}, {"running": True, "health": "none"}),
        (
            "app",
            {"requests": 5, "ratio": 0.5, "up": True, "s": "x"},
            {"requests": 5.0, "ratio": 0.5, "up": True, "s": "x"},
        ),
        ("elsewhere", {"n": 5}, {"n": 5.0}),
    ],
)
def test_numbers_take_the_type_that_the_catalogue_gives_them(
    measurement: str, given: dict[str, Value], kept: dict[str, Value]
) -> None:
    point = point_of(DEVICE, a_sample(measurement=measurement, fields=given))

    assert point.fields == kept
    assert [type(value) for value in point.fields.values()] == [type(value) for value in kept.values()]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"at": EPOCH - timedelta(days=1)}, "telemetry.bad_time"),
        ({"at": END_OF_TIME}, "telemetry.bad_time"),
        ({"fields": {"load_1m": "high"}}, "value.wrong_type"),
        ({"fields": {"load_1m": True}}, "value.wrong_type"),
        ({"fields": {"memory_used_bytes": 0.5}}, "value.wrong_type"),
        ({"measurement": "service", "fields": {"running": 1}}, "value.wrong_type"),
        ({"tags": {"path": "C:\\"}}, "value.bad_character"),
        ({"fields": {"time": 1.0}}, "value.bad_character"),
        ({"tags": {"x": "1"}, "fields": {"x": 1.0}}, "value.bad_character"),
    ],
)
def test_a_sample_that_no_database_can_keep_is_unreadable(change: dict[str, Any], code: str) -> None:
    with pytest.raises(Unreadable) as caught:
        point_of(DEVICE, a_sample(**change))

    assert caught.value.code == code
