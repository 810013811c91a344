"""What the broker's files say; whether Mosquitto obeys them is tested in tests/broker."""

import stat
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_config.render import ACL, CONFIGURATION, render, write
from broker_config.settings import Access, BrokerSettings, Grant, Identity, Limits, UnsafeSettings

FILES = Path("/srv/fleet")


def settings(**changes: Any) -> BrokerSettings:
    usual = BrokerSettings(
        certificate=FILES / "broker.pem",
        key=FILES / "broker.key",
        devices_anchor=FILES / "anchors/device.pem",
        services_anchor=FILES / "anchors/service.pem",
        state=FILES / "broker/state",
        acl=FILES / "broker/acl",
        system_user="fleet",
    )
    return replace(usual, **changes)


def lines(text: str) -> list[str]:
    """The lines Mosquitto acts on."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_rights_are_two_patterns_and_the_named_identities() -> None:
    assert lines(render(settings())[ACL]) == [
        "pattern write fleet/v1/%u/up/#",
        "pattern read fleet/v1/%u/down/#",
        "user fleet-cloud",
        "topic readwrite fleet/v1/#",
        "topic read $SYS/broker/#",
        "user operator",
        "topic read fleet/v1/+/up/#",
        "topic readwrite fleet/v1/+/down/command/#",
    ]


def test_the_topic_root_moves_every_right() -> None:
    rights = lines(render(settings(topic_root="acme/plant-7"))[ACL])

    assert "pattern read acme/plant-7/%u/down/#" in rights
    assert not [line for line in rights if "fleet/v1" in line]


def test_other_identities_get_exactly_their_grants() -> None:
    meter = Identity("meter", (Grant(Access.READ, "fleet/v1/+/up/telemetry/#"),))

    rights = lines(render(settings(others=(meter,)))[ACL])

    assert rights[-2:] == ["user meter", "topic read fleet/v1/+/up/telemetry/#"]


def test_without_a_plain_listener_nobody_is_anonymous() -> None:
    files = render(settings())

    assert "allow_anonymous false" in lines(files[CONFIGURATION])
    assert lines(files[ACL])[0].startswith("pattern")


def test_a_plain_listener_is_on_loopback_even_if_the_others_are_not() -> None:
    files = render(settings(plain_port=1883, bind=ip_address("0.0.0.0")))

    listeners = [line for line in lines(files[CONFIGURATION]) if line.startswith("listener")]
    assert listeners == ["listener 8883 0.0.0.0", "listener 8884 0.0.0.0", "listener 1883 127.0.0.1"]
    assert lines(files[ACL])[0] == "topic readwrite fleet/v1/#"


def test_only_the_devices_listener_ties_the_client_id_to_the_certificate() -> None:
    text = render(settings())[CONFIGURATION]
    devices, services = text.split("listener 8883")[1].split("listener 8884")

    assert "use_username_as_clientid true" in lines(devices)
    assert "use_username_as_clientid true" not in lines(services)
    for listener in (devices, services):
        assert {"require_certificate true", "use_identity_as_username true"} <= set(lines(listener))


def test_every_limit_reaches_the_file() -> None:
    limits = Limits(
        packet_bytes=1001,
        inflight_messages=1002,
        queued_messages=1003,
        queued_bytes=1004,
        session_days=1005,
    )

    assert {
        "max_packet_size 1001",
        "max_inflight_messages 1002",
        "max_queued_messages 1003",
        "max_queued_bytes 1004",
        "persistent_client_expiration 1005d",
    } <= set(lines(render(settings(limits=limits))[CONFIGURATION]))


def test_the_log_goes_to_standard_error_unless_a_file_is_named() -> None:
    assert "log_dest stderr" in lines(render(settings())[CONFIGURATION])
    named = render(settings(log=FILES / "broker/log"))[CONFIGURATION]
    assert "log_dest file /srv/fleet/broker/log" in lines(named)


def test_no_placeholder_is_left_over() -> None:
    files = render(settings(plain_port=1883))

    assert not [text for text in files.values() if "${" in text or "$plain" in text]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "#",
        "Operator",
        "+",
        "a/b",
        "a#",
        "me\ntopic readwrite #",
        "a b",
        "%u",
        "6b1f0f5e-1d0a-4c53-9a55-6f0d4f2f7a01",
    ],
)
def test_a_name_that_could_widen_rights_is_refused(name: str) -> None:
    with pytest.raises(UnsafeSettings):
        Identity(name, ())


@pytest.mark.parametrize("name", ["operator", "fleet-cloud"])
def test_a_name_with_fixed_rights_cannot_be_given_others(name: str) -> None:
    with pytest.raises(UnsafeSettings, match=name):
        settings(others=(Identity(name, ()),))


@pytest.mark.parametrize(
    "topic", ["", "/", "a//b", "a#", "a/#/b", "a+/b", "%u/x", "$CONTROL/#", "$share/g/a", "a b", "a\nuser x"]
)
def test_a_grant_that_is_no_plain_filter_is_refused(topic: str) -> None:
    with pytest.raises(UnsafeSettings):
        Grant(Access.READ, topic)


@pytest.mark.parametrize("topic", ["#", "+", "a", "a/+/b/#", "$SYS/broker/clients/+", "$SYS/#"])
def test_a_plain_filter_may_be_granted(topic: str) -> None:
    assert Grant(Access.READ, topic).topic == topic


@given(st.text(max_size=40) | st.from_regex(r"[a-z]{1,3}[\n\r #+/%$u]?[a-z]{1,3}", fullmatch=True))
def test_no_text_smuggles_a_second_line_into_the_acl(text: str) -> None:
    try:
        identity = Identity(text, (Grant(Access.WRITE, text),))
    except UnsafeSettings:
        return

    rights = lines(render(settings(others=(identity,)))[ACL])

    assert rights[-2:] == [f"user {text}", f"topic write {text}"]


@pytest.mark.parametrize(
    "changes",
    [
        {"topic_root": "fleet/#"},
        {"topic_root": ""},
        {"topic_root": "/fleet"},
        {"topic_root": "$SYS"},
        {"topic_root": "fleet/%u"},
        {"devices_port": 0},
        {"services_port": 65536},
        {"devices_port": 1883, "plain_port": 1883},
        {"system_user": "root\nacl_file /dev/null"},
        {"state": Path("relative")},
        {"key": Path("/srv/a\nuser root")},
        {"log": Path("/srv/a\nuser root")},
    ],
)
def test_settings_that_would_break_the_files_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UnsafeSettings):
        settings(**changes)


@pytest.mark.parametrize(
    "changes", [{"inflight_messages": 0}, {"queued_messages": 0}, {"packet_bytes": 0}, {"queued_bytes": 1}]
)
def test_no_limit_can_be_switched_off(changes: dict[str, int]) -> None:
    with pytest.raises(UnsafeSettings):
        Limits(**changes)


def test_files_are_written_for_the_owner_and_group_and_can_be_written_again(tmp_path: Path) -> None:
    here = settings(state=tmp_path / "broker/state", acl=tmp_path / "broker/acl")

    write(here)
    configuration = write(replace(here, devices_port=9883))

    assert "listener 9883 127.0.0.1" in lines(configuration.read_text())
    assert sorted(path.name for path in configuration.parent.iterdir()) == ["acl", "mosquitto.conf", "state"]
    assert stat.S_IMODE(configuration.stat().st_mode) & 0o137 == 0
    assert stat.S_IMODE(here.acl.stat().st_mode) & 0o137 == 0
    assert stat.S_IMODE(here.state.stat().st_mode) == 0o700
