import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP192R1,
    SECP256R1,
    EllipticCurve,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cloud.api.callers import TRUSTED
from cloud.store import keys
from schemas.errors import ErrorCode
from tests.api.answers import data_of, refusal_of
from tests.servers.api import RunningApi

P256 = SECP256R1()
HOLLOW = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"


def a_request(device: UUID | str, *, curve: EllipticCurve = P256, key: Any = None) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(device))])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    request = builder.sign(key or generate_private_key(curve), hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


def a_token(client: httpx.Client, **order: Any) -> str:
    return str(data_of(client.post("/edge/enrolment/tokens", json=order), 201)["token"])


def claim(running: RunningApi, token: str, device: UUID | str, **more: Any) -> httpx.Response:
    body = {"token": token, "csr": a_request(device), **more}
    with running.client("") as nobody:
        return nobody.post("/edge/enrolment/certificates", json=body)


def test_a_token_comes_with_the_line_to_type(client: httpx.Client) -> None:
    made = data_of(client.post("/edge/enrolment/tokens", json={"labels": {"site": "lab"}, "ttl": 60}), 201)

    words = shlex.split(made["line"])
    assert words[:3] == ["fleet-agent", "run", "--enrol-url"]
    assert words[3] == str(client.base_url).rstrip("/")
    assert words[4:] == ["--token", made["token"]]
    assert re.fullmatch(r"flt_[A-Za-z0-9_-]{43}", made["token"])


def test_a_token_buys_a_certificate_that_the_authority_signed(
    running: RunningApi, client: httpx.Client
) -> None:
    device = uuid4()
    token = a_token(client, labels={"site": "lab"})

    answer = data_of(claim(running, token, device, name="door", labels={"site": "mine", "row": "2"}), 201)

    leaf = x509.load_pem_x509_certificate(answer["certificate"].encode())
    leaf.verify_directly_issued_by(running.services.authority.devices.certificate)
    (name,) = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.value == str(device) == answer["device"]
    assert answer["ca"] == running.services.authority.root_file.read_text()
    assert answer["mqtt_port"] == running.services.settings.device_mqtt_port
    status = data_of(client.get(f"/edge/devices/{device}/status"))
    assert status["name"] == "door"
    assert status["labels"] == {"site": "lab", "row": "2"}


def test_a_token_for_one_lets_in_one_and_repeats_only_for_the_same_key(
    running: RunningApi, client: httpx.Client
) -> None:
    token, device, key = a_token(client), uuid4(), generate_private_key(P256)
    body = {"token": token, "csr": a_request(device, key=key)}

    data_of(client.post("/edge/enrolment/certificates", json=body), 201)
    data_of(client.post("/edge/enrolment/certificates", json=body), 201)

    refusal_of(claim(running, token, device), ErrorCode.CLAIM_DEVICE_TAKEN)
    refusal_of(claim(running, token, uuid4()), ErrorCode.CLAIM_USED)


def test_a_fresh_token_does_not_make_its_bearer_an_enrolled_device(
    running: RunningApi, client: httpx.Client
) -> None:
    device = uuid4()
    data_of(claim(running, a_token(client), device), 201)
    fresh = a_token(client)

    refusal_of(claim(running, fresh, device), ErrorCode.CLAIM_DEVICE_TAKEN)
    data_of(claim(running, fresh, uuid4()), 201)  # the refusal took no use


def test_however_many_claim_at_once_a_token_lets_in_as_many_as_it_says(own_api: RunningApi) -> None:
    with own_api.client() as client:
        token = a_token(client, uses=3)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: claim(own_api, token, uuid4()), range(8)))

    assert sorted(each.status_code for each in answers) == [201] * 3 + [409] * 5


def test_a_token_expires(own_api: RunningApi) -> None:
    with own_api.client() as client:
        token = a_token(client, ttl=60)
    own_api.clock.ahead = timedelta(seconds=61)

    refusal_of(claim(own_api, token, uuid4()), ErrorCode.CLAIM_EXPIRED)


def test_who_guesses_tokens_has_to_wait(own_api: RunningApi) -> None:
    with own_api.client() as client:
        token = a_token(client)
    for _ in range(10):
        refusal_of(claim(own_api, "flt_" + "x" * 43, uuid4()), ErrorCode.CLAIM_UNKNOWN)

    answer = claim(own_api, token, uuid4())

    refusal_of(answer, ErrorCode.CLAIM_TOO_MANY_ATTEMPTS)
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    own_api.clock.ahead = timedelta(seconds=61)
    data_of(claim(own_api, token, uuid4()), 201)


def test_a_request_that_cannot_be_signed_is_refused(own_api: RunningApi) -> None:
    with own_api.client() as client:
        token = a_token(client)
        refused = {
            "nonsense": ErrorCode.CSR_INVALID,
            HOLLOW: ErrorCode.CSR_INVALID,
            a_request("not-a-device"): ErrorCode.CSR_SUBJECT_MISMATCH,
            a_request("11111111-1111-1111-1111-111111111111"): ErrorCode.CSR_SUBJECT_MISMATCH,
            a_request(str(uuid4()).upper()): ErrorCode.CSR_SUBJECT_MISMATCH,
            a_request(uuid4(), curve=SECP192R1()): ErrorCode.CSR_WEAK_KEY,
        }
        for csr, code in refused.items():
            refusal_of(client.post("/edge/enrolment/certificates", json={"token": token, "csr": csr}), code)
        data_of(claim(own_api, token, uuid4()), 201)


@pytest.mark.parametrize(
    ("order", "code"),
    [
        ({"ttl": 0}, ErrorCode.VALUE_OUT_OF_RANGE),
        ({"uses": 0}, ErrorCode.VALUE_OUT_OF_RANGE),
        ({"uses": 1.5}, ErrorCode.VALUE_WRONG_TYPE),
        ({"labels": {"a b": "c"}}, ErrorCode.VALUE_BAD_CHARACTER),
        ({"label": {}}, ErrorCode.FIELD_UNKNOWN),
    ],
)
def test_a_token_order_that_does_not_fit_is_refused(
    client: httpx.Client, order: dict[str, Any], code: ErrorCode
) -> None:
    refusal_of(client.post("/edge/enrolment/tokens", json=order), code)


def test_keys_are_made_used_listed_and_revoked(running: RunningApi, client: httpx.Client) -> None:
    made = data_of(
        client.post("/edge/keys", json={"name": "board", "scopes": ["devices:read"], "ttl": 60}), 201
    )
    with running.client(made["key"]) as board:
        data_of(board.get("/edge/devices"))
        refusal_of(board.get("/edge/keys"), ErrorCode.AUTH_SCOPE)
        (listed,) = [each for each in data_of(client.get("/edge/keys"))["keys"] if each["id"] == made["id"]]
        assert listed["used_at"] is not None
        assert "key" not in listed
        assert made["key"].split("_", 2)[2] not in client.get("/edge/keys").text
        assert data_of(client.delete(f"/edge/keys/{made['id']}"))["revoked_at"] is not None
        data_of(client.delete(f"/edge/keys/{made['id']}"))
        refusal_of(board.get("/edge/devices"), ErrorCode.AUTH_INVALID)


def test_a_key_that_another_process_revokes_is_refused_within_seconds(running: RunningApi) -> None:
    key = running.key_with("devices:read")
    with running.client(key) as client:
        data_of(client.get("/edge/devices"))
        running.store(lambda session: keys.revoke(session, key.split("_")[1], running.clock()))
        running.clock.ahead += TRUSTED
        refusal_of(client.get("/edge/devices"), ErrorCode.AUTH_INVALID)


def test_a_key_cannot_pass_on_more_than_it_has(running: RunningApi) -> None:
    with running.client(running.key_with("keys:write", "devices:read")) as client:
        data_of(client.post("/edge/keys", json={"name": "less", "scopes": ["devices:read"]}), 201)
        more = client.post("/edge/keys", json={"name": "more", "scopes": ["devices:read", "*"]})

    assert refusal_of(more, ErrorCode.AUTH_SCOPE)["field"] == "scopes"


def test_a_key_that_does_not_exist_cannot_be_revoked(client: httpx.Client) -> None:
    for word in ("0123456789ab", "a" * 300, "%00", "ä"):
        refusal_of(client.delete(f"/edge/keys/{word}"), ErrorCode.KEY_UNKNOWN)
