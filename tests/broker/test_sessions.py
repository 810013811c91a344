"""Client ids, queues and retained messages through restarts, crashes and oversized packets."""

import asyncio
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from broker_config.render import write
from broker_config.settings import Access, Grant, Identity
from tests.broker.clients import (
    DENIED,
    eventually,
    first_answer,
    next_message,
    on_devices_port,
    on_services_port,
    publish,
    publish_with,
    served_certificate,
)
from tests.servers.mosquitto import Mosquitto

ROOT = "fleet/v1"
HOUR = 3600
MAXIMUM_PACKET_SIZE = b"\x27"


async def test_a_device_with_anothers_client_id_does_not_disturb_it(broker: Mosquitto) -> None:
    victim, thief = uuid4(), uuid4()
    inbox = f"{ROOT}/{victim}/down/desired"

    async with on_devices_port(broker, broker.device(victim), identifier=str(victim)) as first:
        await first.subscribe(inbox, qos=1)
        async with (
            on_devices_port(broker, broker.device(thief), identifier=str(victim)) as second,
            on_services_port(broker, broker.service("fleet-cloud")) as cloud,
        ):
            await second.subscribe(f"{ROOT}/{victim}/#", qos=1)
            await second.subscribe(f"{ROOT}/{thief}/down/desired", qos=1)
            await cloud.publish(inbox, b"for the victim", qos=1)
            await cloud.publish(f"{ROOT}/{thief}/down/desired", b"for the thief", qos=1)

            assert (await next_message(first)).payload == b"for the victim"
            assert (await next_message(second)).payload == b"for the thief"


async def test_a_device_without_a_client_id_is_known_by_its_certificate(broker: Mosquitto) -> None:
    device = uuid4()
    inbox = f"{ROOT}/{device}/down/desired"
    who = broker.device(device)
    async with on_devices_port(broker, who, identifier="first-name", session=HOUR) as client:
        await client.subscribe(inbox, qos=1)
    assert await publish(broker.services_port, broker.service("fleet-cloud"), inbox) == ""

    async with on_devices_port(broker, who, identifier="second-name", session=HOUR) as client:
        assert (await next_message(client)).payload == b"x"


async def test_one_operator_may_listen_and_speak_at_the_same_time(broker: Mosquitto) -> None:
    operator = broker.service("operator")
    topic = f"{ROOT}/{uuid4()}/down/command/ping/1"

    async with on_services_port(broker, operator) as first, on_services_port(broker, operator) as second:
        await first.subscribe(topic, qos=1)
        await second.subscribe(topic, qos=1)
        assert await publish(broker.services_port, operator, topic) == ""

        assert (await next_message(first)).payload == b"x"
        assert (await next_message(second)).payload == b"x"


async def test_a_queued_command_survives_a_restart(own_broker: Mosquitto) -> None:
    device = uuid4()
    who = own_broker.device(device)
    async with on_devices_port(own_broker, who, session=HOUR) as client:
        await client.subscribe(f"{ROOT}/{device}/down/#", qos=1)
    command = f"{ROOT}/{device}/down/command/ping/1"
    assert await publish(own_broker.services_port, own_broker.service("operator"), command) == ""

    await asyncio.to_thread(own_broker.restart)

    async with on_devices_port(own_broker, who, session=HOUR) as client:
        assert str((await next_message(client)).topic) == command


async def test_retained_state_survives_a_kill_once_it_is_saved(own_broker: Mosquitto) -> None:
    device = uuid4()
    desired = f"{ROOT}/{device}/down/desired"
    cloud = own_broker.service("fleet-cloud")
    assert await publish(own_broker.services_port, cloud, desired, "-r") == ""
    database = own_broker.settings.state / "mosquitto.db"
    published = time.monotonic()
    await eventually(lambda: database.exists() and desired.encode() in database.read_bytes())
    assert time.monotonic() - published < 4, "autosave_interval 1 saves within about two seconds"

    own_broker.kill()
    await asyncio.to_thread(own_broker.start)

    async with on_devices_port(own_broker, own_broker.device(device)) as client:
        await client.subscribe(desired, qos=1)
        assert (await next_message(client)).payload == b"x"


async def test_a_broker_that_lost_its_state_starts_empty(own_broker: Mosquitto) -> None:
    device = uuid4()
    desired = f"{ROOT}/{device}/down/desired"
    cloud = own_broker.service("fleet-cloud")
    assert await publish(own_broker.services_port, cloud, desired, "-r") == ""
    own_broker.terminate()
    own_broker.wipe()
    await asyncio.to_thread(own_broker.start)

    async with on_devices_port(own_broker, own_broker.device(device)) as client:
        await client.subscribe(desired, qos=1)
        assert await publish(own_broker.services_port, cloud, desired) == ""
        first = await next_message(client)
        assert not first.retain, "the retained one is gone; this one is new"


async def test_the_largest_allowed_payload_gets_through(broker: Mosquitto) -> None:
    device = uuid4()
    topic = f"{ROOT}/{device}/up/chunk/1"
    async with (
        on_services_port(broker, broker.service("fleet-cloud")) as cloud,
        on_devices_port(broker, broker.device(device)) as client,
    ):
        await cloud.subscribe(topic, qos=1)
        await client.publish(topic, b"x" * 256 * 1024, qos=1)

        assert len((await next_message(cloud)).payload) == 256 * 1024


async def test_an_mqtt_5_client_is_told_the_largest_packet(broker: Mosquitto) -> None:
    connack = await first_answer(broker.services_port, broker.service("operator").tls())

    limit = broker.settings.limits.packet_bytes
    assert MAXIMUM_PACKET_SIZE + limit.to_bytes(4, "big") in connack


async def test_an_oversized_packet_ends_the_connection(broker: Mosquitto, tmp_path: Path) -> None:
    device = uuid4()
    big = tmp_path / "big"
    big.write_bytes(b"x" * 300 * 1024)

    code, _ = await publish_with(
        broker.devices_port,
        broker.device(device).arguments(),
        f"{ROOT}/{device}/up/chunk/1",
        *("-V", "311", "-f", str(big)),
    )

    assert code != 0
    await eventually(lambda: f"Client {device} disconnected due to oversize packet." in broker.log())


async def test_new_rights_and_a_new_certificate_need_no_restart(own_broker: Mosquitto) -> None:
    newcomer = own_broker.service("newcomer")
    port = own_broker.services_port
    before = await served_certificate(port, newcomer.tls())
    assert DENIED in await publish(port, newcomer, "lobby")

    async with on_services_port(own_broker, own_broker.service("operator")) as connected:
        grant = Grant(Access.WRITE, "lobby")
        write(replace(own_broker.settings, others=(Identity("newcomer", (grant,)),)))
        own_broker.certify()
        os.kill(own_broker.pid, signal.SIGHUP)
        async with asyncio.timeout(5):
            while await served_certificate(port, newcomer.tls()) == before:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.05)

        assert await publish(port, newcomer, "lobby") == ""
        await connected.publish(f"{ROOT}/{uuid4()}/down/command/ping/1", b"still here", qos=1)
