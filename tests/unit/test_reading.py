"""Any bytes are a value, a message or one clear error."""

import json
import math
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from schemas.base import to_wire
from schemas.commands import CommandResult, LogChunk
from schemas.config import Config
from schemas.delivery import DELIVERY
from schemas.desired import DeploymentConfig, Desired, Release
from schemas.device import EnrolmentRequest
from schemas.errors import MEANING, ErrorCode, Unreadable
from schemas.reading import MAX_DEPTH, MAX_PAYLOAD, read, read_json

T = TypeVar("T")
MODELS: list[type[BaseModel]] = [
    *(each.model for each in DELIVERY.values() if each.model is not None),
    DeploymentConfig,
    EnrolmentRequest,
    Release,
]
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")), inner, max_size=4
        )
    ),
    max_leaves=20,
)


def outcome(call: Callable[[], T]) -> T | Unreadable:
    try:
        return call()
    except Unreadable as error:
        return error


def code_of(payload: bytes) -> str:
    with pytest.raises(Unreadable) as caught:
        read_json(payload)
    return caught.value.code


@given(json_values, st.booleans())
def test_any_json_value_is_read_as_it_is(value: Any, plain: bool) -> None:  # noqa: FBT001 - drawn
    assert read_json(json.dumps(value, ensure_ascii=plain).encode()) == value


@given(st.binary() | st.text(st.sampled_from('{}[]",:\\ud80019.eE+-nulltrue NaN\x00')).map(str.encode))
def test_any_bytes_are_a_value_or_unreadable(payload: bytes) -> None:
    value = outcome(lambda: read_json(payload))

    if isinstance(value, Unreadable):
        assert value.code in MEANING
    else:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


@given(json_values.map(lambda value: json.dumps(value).encode()), st.data())
def test_cut_json_is_unreadable_or_another_value(payload: bytes, data: st.DataObject) -> None:
    cut = payload[: data.draw(st.integers(0, len(payload)))]

    found = outcome(lambda: read_json(cut))

    if isinstance(found, Unreadable):
        assert found.problem.message


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
@given(
    json_values
    | st.dictionaries(st.sampled_from(["at", "status", "seq", "release", "services", "target"]), json_values)
)
@settings(max_examples=25, deadline=None)
def test_any_json_is_a_message_or_unreadable(model: type[BaseModel], value: Any) -> None:
    message = outcome(lambda: read(model, json.dumps(value).encode()))

    if isinstance(message, Unreadable):
        assert message.code in MEANING
        assert len(message.problem.message) <= 2000
    else:
        assert read(model, to_wire(message)) == message


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", "payload.empty"),
        (b" \r\n\t", "payload.empty"),
        (b"\xff", "payload.not_utf8"),
        (b"\xed\xa0\x80", "payload.not_utf8"),
        (b"{", "payload.json_syntax"),
        (b"{} {}", "payload.json_syntax"),
        (b"'a'", "payload.json_syntax"),
        (b"\xef\xbb\xbf{}", "payload.json_syntax"),
        (b"NaN", "value.not_finite"),
        (b"[-Infinity]", "value.not_finite"),
        (b"1e999", "value.not_finite"),
        (b"1" * 5000, "value.out_of_range"),
        (b'{"a":1,"a":1}', "payload.duplicate_key"),
        (b'[{"b":{"a":1,"a":2}}]', "payload.duplicate_key"),
        (b'"\\u0000"', "value.bad_character"),
        (b'"\\ud800"', "value.bad_character"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "payload.too_deep"),
        (b"[" * 100_000, "payload.too_deep"),
        (b'{"a":' * 50_000, "payload.too_deep"),
        (b" " * (MAX_PAYLOAD + 1), "payload.too_large"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_wrong_with_a_payload_has_its_code(payload: bytes, code: str) -> None:
    assert code_of(payload) == code


def test_what_is_at_a_limit_is_read() -> None:
    assert read_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    assert read_json(b'"' + b"a" * (MAX_PAYLOAD - 2) + b'"')
    assert read_json(b'"' + b"[" * 1000 + b'"') == "[" * 1000
    assert read_json(b'"\\ud834\\udd1e"') == "\N{MUSICAL SYMBOL G CLEF}"
    assert math.copysign(1, read_json(b"-0.0")) == -1


def test_an_unknown_field_is_met_with_the_one_that_was_meant() -> None:
    with pytest.raises(Unreadable) as caught:
        read(Config, b'{"agent":{"telemetry_intervall":5}}')

    assert caught.value.code == ErrorCode.FIELD_UNKNOWN
    assert caught.value.problem.field == "agent.telemetry_intervall"
    assert "did you mean 'telemetry_interval'?" in str(caught.value)


@pytest.mark.parametrize(
    ("model", "payload", "code", "field"),
    [
        (Config, b"[]", "value.wrong_type", None),
        (Config, b'{"version":"1"}', "value.wrong_type", "version"),
        (Config, b'{"version":-1}', "value.out_of_range", "version"),
        (Config, b'{"agent":{"telemetry_interval":0.5}}', "value.out_of_range", "agent.telemetry_interval"),
        (Config, b'{"services":{"web":{"env":{"FLEETLINE_X":"1"}}}}', "policy.reserved_name", None),
        (CommandResult, b'{"status":"done","at":"2026-03-01T12:00:00Z"}', "value.wrong_type", "status"),
        (LogChunk, b'{"seq":0}', "field.missing", "lines"),
        (Desired, b'{"generation":0}', "field.missing", "release_id"),
    ],
)
def test_what_is_wrong_with_a_message_has_its_code_and_place(
    model: type[BaseModel], payload: bytes, code: str, field: str | None
) -> None:
    with pytest.raises(Unreadable) as caught:
        read(model, payload)

    assert caught.value.code == code
    if field is not None:
        assert caught.value.problem.field == field
