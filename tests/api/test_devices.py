from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import pytest

from cloud.store import devices
from schemas.device import DeviceFacts
from schemas.errors import ErrorCode
from schemas.presence import Online, Presence
from schemas.reported import Health, Outcome, Phase, Reported, ServiceReport, ServiceState
from tests.api.answers import data_of, refusal_of
from tests.servers.api import RunningApi


def says_it_is_online(running: RunningApi, device: UUID) -> None:
    word = Presence(status=Online.ONLINE, session=1, boot=uuid4(), at=running.clock())
    assert running.store(lambda session: devices.record_presence(session, device, word))
    running.store(lambda session: devices.seen(session, [device], running.clock()))


def a_report(running: RunningApi) -> Reported:
    web = ServiceReport(name="web", state=ServiceState.RUNNING, health=Health.HEALTHY)
    job = ServiceReport(name="job", state=ServiceState.FAILED, exit_code=3)
    return Reported(
        revision=1,
        generation=2,
        committed_generation=2,
        phase=Phase.DONE,
        outcome=Outcome.COMMITTED,
        services=[web, job],
        facts=DeviceFacts(model="Pi 4", architecture="aarch64"),
        at=running.clock(),
    )


def test_a_fresh_device_is_offline_and_has_reported_nothing(
    running: RunningApi, client: httpx.Client
) -> None:
    device = running.device("fresh", site="lab")

    status = data_of(client.get(f"/edge/devices/{device}/status"))

    assert status["name"] == "fresh"
    assert status["labels"] == {"site": "lab"}
    assert status["online"] is False
    assert status["reported"] is None
    assert status["facts"] is None
    assert status["ordered"] == {"generation": 0, "config_version": 0}
    assert status["settled"] is None


def test_a_word_from_before_the_broker_restarted_is_not_trusted(
    running: RunningApi, client: httpx.Client
) -> None:
    device = running.device()
    says_it_is_online(running, device)
    assert data_of(client.get(f"/edge/devices/{device}/status"))["online"] is True

    yesterday = running.clock() - timedelta(days=1)
    running.store(lambda session: devices.seen(session, [device], yesterday))

    assert data_of(client.get(f"/edge/devices/{device}/status"))["online"] is None


def test_status_shows_what_the_device_said_beside_what_was_ordered(
    running: RunningApi, client: httpx.Client
) -> None:
    device = running.device()
    says_it_is_online(running, device)
    report = a_report(running)
    running.store(lambda session: devices.record_reported(session, device, report))

    status = data_of(client.get(f"/edge/devices/{device}/status"))

    assert status["online"] is True
    assert status["reported"]["outcome"] == "committed"
    assert status["facts"]["model"] == "Pi 4"
    assert status["selectable"]["arch"] == "aarch64"
    assert [each["name"] for each in status["services"]] == ["web", "job"]
    assert status["settled"] is True


def test_pages_lead_through_every_device_once(running: RunningApi, client: httpx.Client) -> None:
    fleet = {str(running.device(row="paged")) for _ in range(7)}
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = data_of(client.get("/edge/devices", params={"selector": "row=paged", "limit": 3, **after}))
        assert len(page["devices"]) <= 3
        seen += [each["id"] for each in page["devices"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}

    assert set(seen) == fleet
    assert len(seen) == len(fleet)


def test_a_selector_sees_labels_and_facts(running: RunningApi, client: httpx.Client) -> None:
    pi, nano = running.device(row="facts"), running.device(row="facts")
    report = a_report(running)
    running.store(lambda session: devices.record_reported(session, pi, report))

    found = data_of(client.get("/edge/devices", params={"selector": "row=facts,model=Pi 4"}))["devices"]
    others = data_of(client.get("/edge/devices", params={"selector": "row=facts,!model"}))["devices"]

    assert [each["id"] for each in found] == [str(pi)]
    assert found[0]["services"] == {"well": 1, "all": 2}
    assert [each["id"] for each in others] == [str(nano)]


def test_devices_are_listed_by_presence(running: RunningApi, client: httpx.Client) -> None:
    here, gone = running.device(row="presence"), running.device(row="presence")
    says_it_is_online(running, here)

    def ids(online: str) -> list[str]:
        asked = {"selector": "row=presence", "online": online}
        return [each["id"] for each in data_of(client.get("/edge/devices", params=asked))["devices"]]

    assert ids("true") == [str(here)]
    assert ids("false") == [str(gone)]


def test_a_patch_merges_labels_and_takes_away_what_is_null(running: RunningApi, client: httpx.Client) -> None:
    device = running.device("old", site="lab", row="3")

    data_of(client.patch(f"/edge/devices/{device}", json={"labels": {"row": None, "tier": "a"}}))
    changed = data_of(client.patch(f"/edge/devices/{device}", json={"name": "new"}))

    assert changed["labels"] == {"site": "lab", "tier": "a"}
    assert changed["name"] == "new"


@pytest.mark.parametrize(
    ("patch", "code", "field"),
    [
        ({"label": {}}, ErrorCode.FIELD_UNKNOWN, "label"),
        ({"labels": {"ä": "x"}}, ErrorCode.VALUE_BAD_CHARACTER, None),
        ({"labels": {"a": "\n"}}, ErrorCode.VALUE_BAD_CHARACTER, "labels.a"),
        ({"labels": {"a": 1}}, ErrorCode.VALUE_WRONG_TYPE, "labels.a"),
        ({"name": "a\tb"}, ErrorCode.VALUE_BAD_CHARACTER, "name"),
        ({"name": "a" * 101}, ErrorCode.VALUE_OUT_OF_RANGE, "name"),
        ({"labels": {f"k{n}": "v" for n in range(51)}}, ErrorCode.VALUE_OUT_OF_RANGE, "labels"),
    ],
)
def test_a_patch_that_does_not_fit_is_refused(
    running: RunningApi, client: httpx.Client, patch: dict[str, object], code: ErrorCode, field: str | None
) -> None:
    content = refusal_of(client.patch(f"/edge/devices/{running.device()}", json=patch), code)

    if field is not None:
        assert content["field"] == field


def test_labels_beyond_the_limit_are_refused_also_bit_by_bit(
    running: RunningApi, client: httpx.Client
) -> None:
    device = running.device(**{f"k{n}": "v" for n in range(49)})

    data_of(client.patch(f"/edge/devices/{device}", json={"labels": {"last": "v"}}))
    more = client.patch(f"/edge/devices/{device}", json={"labels": {"more": "v"}})

    refusal_of(more, ErrorCode.VALUE_OUT_OF_RANGE)


@pytest.mark.parametrize(
    "word", ["abc", "0", "%00", "11111111-1111-1111-1111-111111111111", "..%2f..", "a" * 500]
)
def test_what_is_no_device_id_is_refused_as_such(client: httpx.Client, word: str) -> None:
    content = client.get(f"/edge/devices/{word}/status").json()

    assert content["code"] in {ErrorCode.DEVICE_BAD_ID, ErrorCode.ROUTE_UNKNOWN}


def test_a_device_that_is_not_enrolled_is_unknown(client: httpx.Client) -> None:
    nobody = uuid4()

    refusal_of(client.get(f"/edge/devices/{nobody}/status"), ErrorCode.DEVICE_UNKNOWN)
    refusal_of(client.patch(f"/edge/devices/{nobody}", json={}), ErrorCode.DEVICE_UNKNOWN)
    refusal_of(client.get(f"/edge/devices/{nobody}/commands"), ErrorCode.DEVICE_UNKNOWN)


def test_whether_a_device_is_online_is_not_known_without_the_broker(own_api: RunningApi) -> None:
    device = own_api.device()
    says_it_is_online(own_api, device)
    own_api.cut_the_link()

    with own_api.client() as client:
        status = data_of(client.get(f"/edge/devices/{device}/status"))
        health = client.get("/health")

    assert status["online"] is None
    assert health.status_code == 503
    assert health.json()["status"] == "error"
    assert health.json()["code"] == ErrorCode.BROKER_UNREACHABLE
    assert health.json()["data"]["parts"]["broker"]["ok"] is False
    assert health.json()["data"]["parts"]["store"]["ok"] is True


def test_a_key_is_refused_once_it_has_expired(own_api: RunningApi) -> None:
    with own_api.client(own_api.key_with("devices:read", ttl=timedelta(hours=1))) as client:
        data_of(client.get("/edge/devices"))
        own_api.clock.ahead = timedelta(hours=2)
        refusal_of(client.get("/edge/devices"), ErrorCode.AUTH_EXPIRED)
