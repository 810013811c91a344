import threading
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from cloud.store import deployments, devices
from schemas.errors import ErrorCode
from schemas.reported import Outcome, Phase, Reported
from tests.api.answers import data_of, refusal_of
from tests.servers.api import RunningApi

WEB: dict[str, Any] = {"name": "web", "image": "shop/web:1"}


def a_release(**more: Any) -> dict[str, Any]:
    return {"name": f"shop-{uuid4().hex[:8]}", "version": "1.0", "services": [WEB], **more}


def says_it_ended(running: RunningApi, device: UUID, generation: int, outcome: Outcome) -> None:
    report = Reported(
        revision=generation,
        generation=generation,
        committed_generation=generation,
        phase=Phase.DONE,
        outcome=outcome,
        at=running.clock(),
    )
    running.store(lambda session: devices.record_reported(session, device, report))
    running.store(lambda session: deployments.record_outcome(session, device, report, running.clock()))


def test_a_deployment_gives_each_device_a_new_generation_and_says_where_to_watch(
    running: RunningApi, client: httpx.Client
) -> None:
    one, two = running.device(), running.device()
    release = a_release()
    order = {"release": release, "target": {"devices": [str(one), str(two)]}}

    made = data_of(client.post("/edge/deploy", json=order), 202)

    assert made["devices"] == {str(one): 1, str(two): 1}
    watched = data_of(httpx.get(running.url + made["links"]["deployment"], headers=client.headers))
    assert watched["id"] == made["deployment_id"]
    assert watched["ended"] is False
    assert {each["device"] for each in watched["devices"]} == {str(one), str(two)}
    assert data_of(client.get("/edge/deployments"))["deployments"][0]["id"] == made["deployment_id"]
    stored = data_of(httpx.get(running.url + made["links"]["release"], headers=client.headers))
    assert stored["release"]["name"] == release["name"]
    assert made["release_id"] in {each["id"] for each in data_of(client.get("/edge/releases"))["releases"]}


def test_a_stored_release_is_deployed_by_its_id(running: RunningApi, client: httpx.Client) -> None:
    first, second = running.device(), running.device()
    order = {"release": a_release(), "target": {"devices": [str(first)]}}
    release = data_of(client.post("/edge/deploy", json=order), 202)["release_id"]

    again = {"release": release, "target": {"devices": [str(second)]}}

    assert data_of(client.post("/edge/deploy", json=again), 202)["release_id"] == release


def test_waiting_for_a_deployment_ends_when_every_device_has_an_outcome(
    running: RunningApi, client: httpx.Client
) -> None:
    one, two = running.device(), running.device()
    order = {"release": a_release(), "target": {"devices": [str(one), str(two)]}}
    made = data_of(client.post("/edge/deploy", json=order), 202)
    says_it_ended(running, one, 1, Outcome.COMMITTED)
    assert data_of(client.get(f"/edge/deployments/{made['deployment_id']}"))["ended"] is False
    later = threading.Timer(0.3, says_it_ended, (running, two, 1, Outcome.ROLLED_BACK))
    later.start()

    status = data_of(client.get(f"/edge/deployments/{made['deployment_id']}", params={"wait": 20}))
    later.join()

    assert status["ended"] is True
    assert status["states"] == {"committed": 1, "rolled_back": 1}


def test_a_selector_chooses_the_devices(running: RunningApi, client: httpx.Client) -> None:
    chosen = running.device(row="deploy", site="lab")
    running.device(row="deploy", site="home")
    order = {"release": a_release(), "target": {"selector": "row=deploy,site=lab"}}

    assert data_of(client.post("/edge/deploy", json=order), 202)["devices"] == {str(chosen): 1}


def services(*manifests: dict[str, Any]) -> dict[str, Any]:
    return {"release": a_release(services=list(manifests))}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"release": str(uuid4())}, ErrorCode.RELEASE_UNKNOWN),
        ({"release": "latest"}, ErrorCode.VALUE_WRONG_TYPE),
        ({"release": 1}, ErrorCode.VALUE_WRONG_TYPE),
        ({"target": {"devices": [str(uuid4())]}}, ErrorCode.DEVICE_UNKNOWN),
        ({"target": {"selector": "site=nowhere"}}, ErrorCode.TARGET_EMPTY),
        ({"target": {"selector": "a=b=c=(("}}, ErrorCode.SELECTOR_SYNTAX),
        ({"target": {}}, ErrorCode.FIELD_MISSING),
        ({"strategy": {"kind": "canary"}}, ErrorCode.VALUE_WRONG_TYPE),
        ({"waves": []}, ErrorCode.FIELD_UNKNOWN),
        (services({**WEB, "depends_on": {"db": "healthy"}}), ErrorCode.MANIFEST_UNKNOWN_DEPENDENCY),
        (services({**WEB, "depends_on": {"web": "started"}}), ErrorCode.MANIFEST_CYCLE),
        (services(WEB, WEB), ErrorCode.MANIFEST_DUPLICATE_SERVICE),
        (services({**WEB, "ports": [{"container": 0}]}), ErrorCode.PORT_INVALID),
        (services({**WEB, "env": {"FLEETLINE_X": "1"}}), ErrorCode.POLICY_RESERVED_NAME),
        (services({**WEB, "privileged": True}), ErrorCode.FIELD_UNKNOWN),
        (services({**WEB, "image": "UPPER CASE"}), ErrorCode.VALUE_BAD_CHARACTER),
        ({"release": a_release(schema_version=9)}, ErrorCode.SCHEMA_UNSUPPORTED_VERSION),
        (services(*({**WEB, "name": f"s{n}"} for n in range(101))), ErrorCode.MANIFEST_TOO_MANY_SERVICES),
    ],
)
def test_an_order_that_does_not_fit_is_refused_with_its_code(
    running: RunningApi, client: httpx.Client, change: dict[str, Any], code: ErrorCode
) -> None:
    order = {"release": a_release(), "target": {"devices": [str(running.device())]}, **change}

    refusal_of(client.post("/edge/deploy", json=order), code)


def test_a_release_never_changes(running: RunningApi, client: httpx.Client) -> None:
    release, target = a_release(), {"devices": [str(running.device())]}
    data_of(client.post("/edge/deploy", json={"release": release, "target": target}), 202)
    other = {**release, "services": [{**WEB, "image": "shop/web:2"}]}

    refusal_of(
        client.post("/edge/deploy", json={"release": other, "target": target}), ErrorCode.RELEASE_CHANGED
    )


def test_what_is_not_stored_is_unknown(client: httpx.Client) -> None:
    refusal_of(client.get(f"/edge/deployments/{uuid4()}"), ErrorCode.DEPLOYMENT_UNKNOWN)
    refusal_of(client.get(f"/edge/releases/{uuid4()}"), ErrorCode.RELEASE_UNKNOWN)
    refusal_of(client.get("/edge/releases/x"), ErrorCode.VALUE_WRONG_TYPE)


def test_a_configuration_is_merged_into_what_the_device_has(
    running: RunningApi, client: httpx.Client
) -> None:
    device = running.device()
    target = {"devices": [str(device)]}
    data_of(client.post("/edge/deploy", json={"release": a_release(), "target": target}), 202)

    first = {"target": target, "agent": {"telemetry_interval": 5}}
    second = {"target": target, "services": {"web": {"env": {"LOG": "debug"}}}}

    assert data_of(client.post("/edge/config/update", json=first), 202)["devices"] == {str(device): 1}
    assert data_of(client.post("/edge/config/update", json=second), 202)["devices"] == {str(device): 2}
    status = data_of(client.get(f"/edge/devices/{device}/status"))
    assert status["ordered"] == {"generation": 1, "config_version": 2}


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"agent": {"telemetry_intervall": 5}}, ErrorCode.FIELD_UNKNOWN, "agent.telemetry_intervall"),
        ({"agent": {"telemetry_interval": 0}}, ErrorCode.VALUE_OUT_OF_RANGE, "agent.telemetry_interval"),
        ({"agent": {"log_level": "loud"}}, ErrorCode.VALUE_WRONG_TYPE, "agent.log_level"),
        ({"agent": []}, ErrorCode.VALUE_WRONG_TYPE, "agent"),
        ({"services": {"db": {"env": {}}}}, ErrorCode.CONFIG_UNKNOWN_SERVICE, "services.db"),
        ({"services": {"web": {"envv": {}}}}, ErrorCode.FIELD_UNKNOWN, "services.web.envv"),
        ({"services": {"web": 5}}, ErrorCode.VALUE_WRONG_TYPE, "services.web"),
        ({"agents": {}}, ErrorCode.FIELD_UNKNOWN, "agents"),
        ({"agent": {"log_level": "debug"}, "target": {"selector": "a=b"}}, ErrorCode.TARGET_EMPTY, None),
        ({}, ErrorCode.FIELD_MISSING, None),
        ({"agent": {}, "services": {}}, ErrorCode.FIELD_MISSING, None),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    running: RunningApi, client: httpx.Client, change: dict[str, Any], code: ErrorCode, field: str | None
) -> None:
    target = {"devices": [str(running.device())]}
    data_of(client.post("/edge/deploy", json={"release": a_release(), "target": target}), 202)

    content = refusal_of(client.post("/edge/config/update", json={"target": target, **change}), code)

    assert content.get("field") == field
