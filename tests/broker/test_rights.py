"""Who may publish and read what, on the real broker, and how a denial looks.

Mosquitto's `acl_file` judges a PUBLISH when it comes in and again when it goes out, never a SUBSCRIBE: a
subscription to foreign topics is granted and stays silent. These tests pin both.
"""

from collections.abc import Iterator
from uuid import UUID

import pytest

from broker_config.settings import Access, Grant, Identity
from cloud.pki.authority import Authority
from tests.broker.clients import (
    CONNACK,
    DENIED,
    first_answer,
    messages,
    next_message,
    on_devices_port,
    on_services_port,
    publish,
    publish_with,
)
from tests.servers.mosquitto import Mosquitto, Pass, mosquitto

ROOT = "fleet/v1"
_WILL_QOS_1_CLEAN = 0b0000_1110
MINE = UUID("6b1f0f5e-1d0a-4c53-9a55-6f0d4f2f7a01")
OTHER = UUID("6b1f0f5e-1d0a-4c53-9a55-6f0d4f2f7a02")
METER = Identity(
    "meter",
    (
        Grant(Access.READ, f"{ROOT}/+/up/telemetry/#"),
        Grant(Access.WRITE, f"{ROOT}/{MINE}/down/command/restart/+"),
    ),
)
EVERY_TOPIC = [
    f"{ROOT}/{MINE}/up/telemetry/cpu",
    f"{ROOT}/{MINE}/up/result/ping/1",
    f"{ROOT}/{MINE}/down/command/restart/1",
    f"{ROOT}/{MINE}/down/command/ping/1",
    f"{ROOT}/{MINE}/down/desired",
    f"{ROOT}/{MINE}/down",
    f"{ROOT}/{MINE}/sideways",
    f"{ROOT}/{OTHER}/up/telemetry/cpu",
    f"{ROOT}/{OTHER}/down/command/ping/1",
    f"{ROOT}/{OTHER}/down/config",
    f"{ROOT}/{MINE}/up",
]
MAY_WRITE = {
    "device": [
        f"{ROOT}/{MINE}/up/telemetry/cpu",
        f"{ROOT}/{MINE}/up/result/ping/1",
        f"{ROOT}/{MINE}/up",
    ],
    "operator": [
        f"{ROOT}/{MINE}/down/command/restart/1",
        f"{ROOT}/{MINE}/down/command/ping/1",
        f"{ROOT}/{OTHER}/down/command/ping/1",
    ],
    "meter": [f"{ROOT}/{MINE}/down/command/restart/1"],
    "nobody": [],
    "fleet-cloud": EVERY_TOPIC,
}
MAY_READ = {
    "device": [
        f"{ROOT}/{MINE}/down/command/restart/1",
        f"{ROOT}/{MINE}/down/command/ping/1",
        f"{ROOT}/{MINE}/down/desired",
        f"{ROOT}/{MINE}/down",
    ],
    "operator": [
        f"{ROOT}/{MINE}/up/telemetry/cpu",
        f"{ROOT}/{MINE}/up/result/ping/1",
        f"{ROOT}/{MINE}/up",
        f"{ROOT}/{OTHER}/up/telemetry/cpu",
        f"{ROOT}/{MINE}/down/command/restart/1",
        f"{ROOT}/{MINE}/down/command/ping/1",
        f"{ROOT}/{OTHER}/down/command/ping/1",
    ],
    "meter": [f"{ROOT}/{MINE}/up/telemetry/cpu", f"{ROOT}/{OTHER}/up/telemetry/cpu"],
    "fleet-cloud": EVERY_TOPIC,
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Mosquitto]:
    """A broker that knows one integration besides the cloud and the operator."""
    with mosquitto(tmp_path_factory.mktemp("guarded"), authority, others=(METER,)) as running:
        yield running


def door_of(broker: Mosquitto, name: str) -> tuple[int, Pass]:
    if name == "device":
        return broker.devices_port, broker.device(MINE)
    return broker.services_port, broker.service(name)


@pytest.mark.parametrize("name", MAY_WRITE)
async def test_each_identity_publishes_only_where_it_may_and_is_told_so(
    guarded: Mosquitto, name: str
) -> None:
    port, who = door_of(guarded, name)

    answers = {topic: await publish(port, who, topic) for topic in [*EVERY_TOPIC, "elsewhere", "$SYS/x"]}

    assert [topic for topic, complaint in answers.items() if not complaint] == [
        topic for topic in EVERY_TOPIC if topic in MAY_WRITE[name]
    ]
    assert {complaint for complaint in answers.values() if complaint} == {
        f"Warning: Publish 1 failed: {DENIED}."
    }


@pytest.mark.parametrize("name", MAY_READ)
async def test_each_identity_hears_only_what_it_may(guarded: Mosquitto, name: str) -> None:
    port, who = door_of(guarded, name)
    door = on_devices_port if port == guarded.devices_port else on_services_port
    readable = MAY_READ[name]
    others = [topic for topic in EVERY_TOPIC if topic not in readable]

    async with door(guarded, who) as listener, on_services_port(guarded, _cloud(guarded)) as cloud:
        await listener.subscribe(f"{ROOT}/#", qos=1)
        for topic in [*others, *readable]:
            await cloud.publish(topic, b"x", qos=1)

        assert await messages(listener, until=readable[-1]) == readable


async def test_a_subscription_to_foreign_topics_is_granted_but_silent(guarded: Mosquitto) -> None:
    own, foreign = f"{ROOT}/{MINE}/down/desired", f"{ROOT}/{OTHER}/down/desired"
    filters = ["#", foreign, f"$share/thieves/{ROOT}/{OTHER}/down/#", "$SYS/#"]

    async with (
        on_devices_port(guarded, guarded.device(MINE)) as device,
        on_services_port(guarded, _cloud(guarded)) as cloud,
    ):
        for each in filters:
            granted = await device.subscribe(each, qos=1)
            assert [str(code) for code in granted] == ["Granted QoS 1"]
        await cloud.publish(foreign, b"x", qos=1)
        await cloud.publish(own, b"x", qos=1)

        assert str((await next_message(device)).topic) == own


async def test_retained_messages_are_withheld_like_others(guarded: Mosquitto) -> None:
    own, foreign = f"{ROOT}/{MINE}/down/config", f"{ROOT}/{OTHER}/down/config"

    async with (
        on_devices_port(guarded, guarded.device(MINE)) as device,
        on_services_port(guarded, _cloud(guarded)) as cloud,
    ):
        await cloud.publish(foreign, b"theirs", qos=1, retain=True)
        await cloud.publish(own, b"mine", qos=1, retain=True)
        await device.subscribe([(foreign, 1), (own, 1)])

        assert str((await next_message(device)).topic) == own
        for topic in (own, foreign):
            await cloud.publish(topic, b"", qos=1, retain=True)


async def test_a_will_on_a_foreign_topic_is_never_sent(guarded: Mosquitto) -> None:
    """The connection itself is accepted: the broker judges the will only when it would send it."""
    own, foreign = f"{ROOT}/{MINE}/up/presence", f"{ROOT}/{OTHER}/up/presence"

    async with on_services_port(guarded, _cloud(guarded)) as cloud:
        await cloud.subscribe(f"{ROOT}/+/up/presence", qos=1)
        for topic in (foreign, own):
            await _connect_and_vanish(guarded, will=topic)

        assert str((await next_message(cloud)).topic) == own


async def test_only_the_cloud_reads_the_brokers_own_figures(guarded: Mosquitto) -> None:
    topic = "$SYS/broker/version"
    own = f"{ROOT}/{MINE}/up/telemetry/cpu"

    async with (
        on_services_port(guarded, _cloud(guarded)) as cloud,
        on_services_port(guarded, guarded.service("operator")) as operator,
    ):
        await cloud.subscribe(topic)
        await operator.subscribe([(topic, 1), (own, 1)])
        assert bytes((await next_message(cloud)).payload).startswith(b"mosquitto version")
        await cloud.publish(own, b"x", qos=1)
        assert str((await next_message(operator)).topic) == own


async def test_the_cloud_may_share_a_subscription(guarded: Mosquitto) -> None:
    topic = f"{ROOT}/{MINE}/up/telemetry/cpu"

    async with (
        on_services_port(guarded, _cloud(guarded)) as cloud,
        on_devices_port(guarded, guarded.device(MINE)) as device,
    ):
        await cloud.subscribe(f"$share/ingest/{ROOT}/+/up/telemetry/+", qos=1)
        await device.publish(topic, b"x", qos=1)

        assert str((await next_message(cloud)).topic) == topic


async def test_an_mqtt_3_1_1_publisher_is_not_told_of_a_denial(guarded: Mosquitto) -> None:
    """The protocol has no word for it; another reason to prefer MQTT 5."""
    who = guarded.device(MINE)

    denied = await publish_with(
        guarded.devices_port, who.arguments(), f"{ROOT}/{OTHER}/up/event/x", "-V", "311"
    )

    assert denied == (0, "")


def _cloud(broker: Mosquitto) -> Pass:
    return broker.service("fleet-cloud")


async def _connect_and_vanish(broker: Mosquitto, *, will: str) -> None:
    """Connect with a will, then lose the connection without a DISCONNECT."""
    properties = bytes([0])
    body = b"\x00\x04MQTT\x05" + bytes([_WILL_QOS_1_CLEAN]) + b"\x00\x3c" + properties
    body += _text("") + properties + _text(will) + _text("gone")
    packet = b"\x10" + bytes([len(body)]) + body
    assert (await first_answer(broker.devices_port, broker.device(MINE).tls(), packet)).startswith(CONNACK)


def _text(value: str) -> bytes:
    return len(value).to_bytes(2, "big") + value.encode()
