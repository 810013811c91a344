"""What holds for every request: envelope, keys, bodies, parameters."""

import re
import socket
import time
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from cloud.api.app import BODIES, describe
from schemas.errors import ErrorCode
from tests.api.answers import data_of, refusal_of
from tests.servers.api import RunningApi

OPERATIONS = [
    (method.upper(), path.removeprefix("/api/v1"), operation)
    for path, item in describe().openapi()["paths"].items()
    for method, operation in item.items()
]
GUARDED = [(method, path) for method, path, operation in OPERATIONS if operation.get("security")]
WITH_BODY = [(method, path) for method, path, operation in OPERATIONS if "requestBody" in operation]
OPEN = {"get_health", "enrol"}


def filled(path: str) -> str:
    return re.sub(r"\{\w+\}", str(uuid4()), path)


def test_only_health_and_enrolment_need_no_key() -> None:
    assert {each["operationId"] for _, _, each in OPERATIONS if not each.get("security")} == OPEN


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_an_operation_refuses_to_work_without_a_key(running: RunningApi, method: str, path: str) -> None:
    with running.client("") as client:
        answer = client.request(method, filled(path))

    refusal_of(answer, ErrorCode.AUTH_MISSING)
    assert answer.headers["www-authenticate"] == 'Bearer realm="fleetline"'


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_an_operation_refuses_a_wrong_key(running: RunningApi, method: str, path: str) -> None:
    wrong = running.key[:-2] + ("AA" if running.key[-2:] != "AA" else "BB")
    with running.client(wrong) as client:
        answer = client.request(method, filled(path))

    refusal_of(answer, ErrorCode.AUTH_INVALID)
    assert "invalid_token" in answer.headers["www-authenticate"]


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_an_operation_refuses_a_key_with_every_scope_but_its_own(
    running: RunningApi, method: str, path: str
) -> None:
    item = describe().openapi()["paths"][f"/api/v1{path}"][method.lower()]
    (needed,) = item["security"][0]["key"]
    others = {each["security"][0]["key"][0] for _, _, each in OPERATIONS if each.get("security")} - {needed}
    with running.client(running.key_with(*sorted(others))) as client:
        answer = client.request(method, filled(path))

    assert needed in refusal_of(answer, ErrorCode.AUTH_SCOPE)["message"]


@pytest.mark.parametrize(
    "key", ["x", "flk_", "flk_0123456789ab_", "flk_é_x", "Bearer", "flk_0123456789ab_" + "a" * 43]
)
def test_a_malformed_key_is_an_unknown_key(running: RunningApi, key: str) -> None:
    with running.client("") as client:
        answer = client.get("/edge/keys", headers={b"Authorization": f"Bearer {key}".encode()})

    refusal_of(answer, ErrorCode.AUTH_INVALID)


def test_another_kind_of_authorization_is_none(running: RunningApi) -> None:
    with running.client("") as client:
        answer = client.get("/edge/keys", auth=("admin", running.key))

    refusal_of(answer, ErrorCode.AUTH_MISSING)


def test_an_expired_key_says_so(running: RunningApi) -> None:
    key = running.key_with("*", ttl=timedelta(milliseconds=1))
    time.sleep(0.005)
    with running.client(key) as client:
        refusal_of(client.get("/edge/keys"), ErrorCode.AUTH_EXPIRED)


def test_a_path_that_does_not_exist_is_refused_in_the_envelope(running: RunningApi) -> None:
    with running.client() as client:
        refusal_of(client.get("/nothing"), ErrorCode.ROUTE_UNKNOWN)
        refusal_of(client.get("/edge/devices/"), ErrorCode.ROUTE_UNKNOWN)
        refusal_of(client.get("/edge/deploy/../../../etc/passwd"), ErrorCode.ROUTE_UNKNOWN)


def test_a_method_a_path_does_not_take_is_refused_with_those_it_takes(client: httpx.Client) -> None:
    answer = client.put("/edge/keys", json={})

    refusal_of(answer, ErrorCode.METHOD_NOT_ALLOWED)
    assert answer.headers["allow"] == "GET, POST"


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)
def test_a_parameter_that_does_not_exist_is_refused(
    client: httpx.Client, method: str, path: str, operation: dict[str, Any]
) -> None:
    answer = client.request(method, filled(path), params={"zzz": "1"}, json={})

    content = answer.json()
    if content["code"] == ErrorCode.FIELD_UNKNOWN:
        assert content["field"] == "zzz"
    else:  # a path that names nothing, or an empty body, may be met first
        assert "{" in path or "requestBody" in operation, content


def test_a_misspelt_parameter_gets_a_suggestion(client: httpx.Client) -> None:
    content = refusal_of(client.get("/edge/devices", params={"limt": 5}), ErrorCode.FIELD_UNKNOWN)

    assert content["field"] == "limt"
    assert "did you mean 'limit'?" in content["message"]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=abc", ErrorCode.VALUE_WRONG_TYPE),
        ("limit=5.0", ErrorCode.VALUE_WRONG_TYPE),
        ("limit=", ErrorCode.VALUE_WRONG_TYPE),
        ("limit=0", ErrorCode.VALUE_OUT_OF_RANGE),
        ("limit=1001", ErrorCode.VALUE_OUT_OF_RANGE),
        ("limit=-1", ErrorCode.VALUE_OUT_OF_RANGE),
        ("limit=99999999999999999999999", ErrorCode.VALUE_WRONG_TYPE),
        ("limit=1&limit=2", ErrorCode.VALUE_WRONG_TYPE),
        ("online=yes", ErrorCode.VALUE_WRONG_TYPE),
        ("after=abc", ErrorCode.DEVICE_BAD_ID),
        ("selector=%3D%3D", ErrorCode.SELECTOR_SYNTAX),
        ("selector=a%00b", ErrorCode.SELECTOR_SYNTAX),
        ("selector=%ff%fe", ErrorCode.SELECTOR_SYNTAX),
        ("selector=" + "a" * 1001, ErrorCode.VALUE_OUT_OF_RANGE),
    ],
)
def test_a_parameter_that_does_not_fit_is_refused_with_its_code(
    client: httpx.Client, query: str, code: ErrorCode
) -> None:
    refusal_of(client.get(f"/edge/devices?{query}"), code)


BAD_BODIES: list[tuple[bytes, ErrorCode]] = [
    (b"", ErrorCode.PAYLOAD_EMPTY),
    (b"  \n", ErrorCode.PAYLOAD_EMPTY),
    (b"\xff\xfe", ErrorCode.PAYLOAD_NOT_UTF8),
    (b"{", ErrorCode.PAYLOAD_JSON_SYNTAX),
    (b"{'a': 1}", ErrorCode.PAYLOAD_JSON_SYNTAX),
    (b'{"a": 1, "a": 2}', ErrorCode.PAYLOAD_DUPLICATE_KEY),
    (b"[" * 100_000, ErrorCode.PAYLOAD_TOO_DEEP),
    (b'{"a": NaN}', ErrorCode.VALUE_NOT_FINITE),
    (b'{"a": 1e999}', ErrorCode.VALUE_NOT_FINITE),
    (b'{"a": "\\u0000"}', ErrorCode.VALUE_BAD_CHARACTER),
    (b'{"a": "\\ud800"}', ErrorCode.VALUE_BAD_CHARACTER),
    (b'{"a": 123456789012345678901234567890}', ErrorCode.VALUE_OUT_OF_RANGE),
    (b'"text"', ErrorCode.VALUE_WRONG_TYPE),
    (b"null", ErrorCode.VALUE_WRONG_TYPE),
    (b"[]", ErrorCode.VALUE_WRONG_TYPE),
    (b'{"zzzzzz": 1}', ErrorCode.FIELD_UNKNOWN),
    (b" " * (1024 * 1024 + 1), ErrorCode.PAYLOAD_TOO_LARGE),
]


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
def test_a_body_that_cannot_be_read_is_refused_with_its_code(
    client: httpx.Client, method: str, path: str
) -> None:
    for body, code in BAD_BODIES:
        refusal_of(client.request(method, filled(path), content=body), code)


def test_a_body_is_refused_by_its_announced_length_before_it_came(running: RunningApi) -> None:
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /api/v1/edge/deploy HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n"
            b"Authorization: Bearer " + running.key.encode() + b"\r\n\r\n{"
        )
        answer = b""
        while b"}" not in answer and (more := connection.recv(65536)):
            answer += more

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"payload.too_large" in answer


def test_a_body_without_an_announced_length_is_refused_at_the_limit(client: httpx.Client) -> None:
    chunks = (b" " * 65536 for _ in range(17))

    refusal_of(client.post("/edge/keys", content=chunks), ErrorCode.PAYLOAD_TOO_LARGE)


def test_a_large_body_that_fits_is_read(client: httpx.Client) -> None:
    body = b'{"name": "big", "scopes": ["*"]' + b" " * 900_000 + b"}"

    data_of(client.post("/edge/keys", content=body), 201)


def test_a_request_id_comes_back_and_a_strange_one_is_replaced(client: httpx.Client) -> None:
    assert client.get("/health", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    strange = client.get("/health", headers={"X-Request-Id": 'a"<b>'}).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", strange)


def test_every_reference_in_the_openapi_document_leads_somewhere(client: httpx.Client) -> None:
    document = client.get("/openapi.json")
    assert document.status_code == 200
    schemas = document.json()["components"]["schemas"]
    used = set(re.findall(r'"#/components/schemas/([^"]+)"', document.text))

    assert used <= schemas.keys()
    assert {each.__name__ for each in BODIES} <= used


def test_every_operation_of_the_openapi_document_is_described_with_examples_and_refusals() -> None:
    for _, path, operation in OPERATIONS:
        assert operation["operationId"], path
        assert operation["summary"], path
        assert operation["description"], path
        assert operation["tags"], path
        if "requestBody" in operation:
            assert operation["requestBody"]["content"]["application/json"]["examples"], path
            assert {"400", "413", "422"} <= operation["responses"].keys(), path
        if operation.get("security"):
            assert {"401", "403"} <= operation["responses"].keys(), path


def test_health_names_its_parts_and_needs_no_key(running: RunningApi) -> None:
    with running.client("") as client:
        health = data_of(client.get("/health"))

    assert health["parts"].keys() == {"broker", "store", "metrics"}
    assert all(part["ok"] for part in health["parts"].values())
    assert client_head_works(running)


def client_head_works(running: RunningApi) -> bool:
    with running.client("") as client:
        answer = client.head("/health")
    return answer.status_code == 200 and answer.content == b""


def test_answers_on_a_kept_connection_do_not_wait_for_delayed_acknowledgements(client: httpx.Client) -> None:
    took = []
    for _ in range(20):
        began = time.perf_counter()
        data_of(client.get("/edge/monitoring/catalogue"))
        took.append(time.perf_counter() - began)

    assert min(took) < 0.04
