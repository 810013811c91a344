"""Which certificate opens which listener."""

import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from uuid import uuid4

import pytest

from cloud.pki.authority import Authority
from tests.broker.clients import DENIED, lets_in, publish, publish_with
from tests.servers.mosquitto import HOST, Doors, Mosquitto, Pass, mosquitto


def as_issued(chain: bytes, authority: Authority) -> bytes:
    return chain


def leaf_alone(chain: bytes, authority: Authority) -> bytes:
    return chain[: chain.index(_END) + len(_END)]


def with_the_root(chain: bytes, authority: Authority) -> bytes:
    return chain + authority.root_file.read_bytes()


def with_its_own_anchor(chain: bytes, authority: Authority) -> bytes:
    return leaf_alone(chain, authority) + authority.device_anchor.read_bytes()


def with_both_anchors(chain: bytes, authority: Authority) -> bytes:
    return chain + authority.device_anchor.read_bytes() + authority.service_anchor.read_bytes()


_END = b"-----END CERTIFICATE-----\n"
Dressing = Callable[[bytes, Authority], bytes]
DRESSINGS = [as_issued, leaf_alone, with_the_root, with_its_own_anchor, with_both_anchors]


async def test_each_kind_of_certificate_opens_its_own_door(broker: Mosquitto) -> None:
    assert await lets_in(broker.devices_port, broker.device(uuid4()).tls())
    assert await lets_in(broker.services_port, broker.service("operator").tls())


@pytest.mark.parametrize("dress", DRESSINGS)
async def test_a_device_is_refused_at_the_services_door_whatever_chain_it_sends(
    broker: Mosquitto, dress: Dressing
) -> None:
    who = broker.device(uuid4())
    who.chain.write_bytes(dress(who.chain.read_bytes(), broker.authority))

    assert not await lets_in(broker.services_port, who.tls())


@pytest.mark.parametrize("dress", DRESSINGS)
async def test_a_service_is_refused_at_the_devices_door_whatever_chain_it_sends(
    broker: Mosquitto, dress: Dressing
) -> None:
    who = broker.service("reporter")
    who.chain.write_bytes(dress(who.chain.read_bytes(), broker.authority))

    assert not await lets_in(broker.devices_port, who.tls())


async def test_a_servers_certificate_opens_no_door(broker: Mosquitto) -> None:
    server = broker.authority.issue_server(addresses=[IPv4Address(HOST)], now=datetime.now(UTC))
    who = broker.admit("stolen-server", server)

    assert not await lets_in(broker.devices_port, who.tls())
    assert not await lets_in(broker.services_port, who.tls())


async def test_a_certificate_of_another_fleet_opens_no_door(broker: Mosquitto, tmp_path: Path) -> None:
    stranger = Authority.create(tmp_path / "pki", now=datetime.now(UTC))
    theirs = stranger.issue_client("operator", now=datetime.now(UTC))
    who = broker.admit("stranger", theirs)

    assert not await lets_in(broker.services_port, who.tls())


async def test_an_expired_certificate_opens_no_door(broker: Mosquitto) -> None:
    past = datetime.now(UTC) - timedelta(days=2)
    issued = broker.authority.issue_client("late", now=past, lifetime=timedelta(days=1))

    assert not await lets_in(broker.services_port, broker.admit("late", issued).tls())


async def test_no_certificate_opens_no_door(broker: Mosquitto) -> None:
    context = ssl.create_default_context(cafile=broker.authority.root_file)

    assert not await lets_in(broker.devices_port, context)
    assert not await lets_in(broker.services_port, context)


async def test_mosquitto_pub_is_told_when_it_knocks_at_the_wrong_door(broker: Mosquitto) -> None:
    who = broker.device(uuid4())

    code, complaint = await publish_with(broker.services_port, who.arguments(), "x", "-V", "5")

    assert code != 0
    assert complaint


async def test_there_is_no_door_without_tls_unless_asked_for(broker: Mosquitto) -> None:
    assert broker.listening() == {(HOST, broker.devices_port), (HOST, broker.services_port)}


@pytest.fixture
def open_broker(tmp_path: Path, authority: Authority) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path / "broker", authority, doors=Doors.TLS_AND_PLAIN) as running:
        yield running


async def test_the_plain_door_is_on_loopback_and_confined_to_the_topic_root(open_broker: Mosquitto) -> None:
    plain = open_broker.settings.plain_port
    assert plain is not None

    assert (HOST, plain) in open_broker.listening()
    assert await publish_with(plain, [], f"{open_broker.topic_root}/anything", "-V", "5") == (0, "")
    _, complaint = await publish_with(plain, [], "elsewhere", "-V", "5")
    assert DENIED in complaint


async def test_an_open_plain_door_opens_no_other(open_broker: Mosquitto) -> None:
    context = ssl.create_default_context(cafile=open_broker.authority.root_file)

    assert not await lets_in(open_broker.services_port, context)
    assert DENIED in await publish(open_broker.devices_port, _device(open_broker), "fleet/v1/x")


def _device(broker: Mosquitto) -> Pass:
    return broker.device(uuid4())
