"""Junk on every kind of topic, down to devices and up to the cloud, harms nobody and is accounted for."""

import asyncio
import json
import random
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import aiomqtt
import pytest

from schemas.errors import ErrorCode
from schemas.reading import MAX_PAYLOAD
from tests.servers.enrol import enrol
from tests.servers.mqtt_tools import listening, mosquitto_pub
from tests.servers.stack import Stack, until

MESSAGES = 150
"""To the device, and as many to the cloud."""


@pytest.fixture
def chance() -> random.Random:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    return random.Random(seed)


@dataclass(frozen=True, slots=True)
class Junk:
    """One message; *topic* begins after the device."""

    topic: str
    payload: bytes


def payloads(chance: random.Random) -> bytes:
    deep = b"[" * 5000 + b"]" * 5000
    whole = json.dumps(
        {"status": "online", "session": 1, "seq": 1, "samples": [], "generation": 1, "at": "2026-01-01"}
    ).encode()
    return chance.choice(
        [
            b"",
            b" ",
            b"null",
            b"[]",
            b"\xff\xfe\x00",
            chance.randbytes(chance.randrange(1, 200)),
            deep,
            b'{"a":' * 200 + b"1" + b"}" * 200,
            b'{"service":"web","service":"api"}',
            b'{"value":NaN}',
            b'{"value":1e999}',
            b'{"service":"\\ud800"}',
            b'{"service":"\\u0000"}',
            b'{"generation":-1}',
            b'{"version":99999999999999999999999999}',
            b'{"boot":"x","seq":0}',
            b'{"service":' + b'"' + b"x" * 5000 + b'"}',
            b"9" * 5000,
            whole,
            whole[: chance.randrange(len(whole))],
            b"{" + b" " * (MAX_PAYLOAD + 10) + b"}",
        ]
    )


def downward(chance: random.Random) -> Junk:
    word = chance.choice(["restart", "ping", "logs", "reboot", "stop"])
    id_ = chance.choice([str(uuid4()), "1", "A" * 36])
    topic = chance.choice(
        [
            "desired",
            "config",
            f"command/{word}/{id_}",
            "ack/main",
            "ack/other",
            "nonsense",
            "command",
            "x/y/z",
        ]
    )
    return Junk(f"down/{topic}", payloads(chance))


def upward(chance: random.Random) -> Junk:
    id_ = chance.choice([str(uuid4()), "1"])
    topic = chance.choice(
        [
            *("presence", "reported", "telemetry/main", "telemetry/other", "event/service-died"),
            *(f"result/ping/{id_}", f"chunk/{id_}", "alert/hot", "nonsense", "event/UPPER"),
        ]
    )
    return Junk(f"up/{topic}", payloads(chance))


@dataclass(frozen=True, slots=True)
class Voice:
    """Whose certificate speaks on which port; *device* is whom the topics are about."""

    stack: Stack
    device: str
    port: int
    chain: Path
    key: Path
    identifier: str

    def say(self, junk: Sequence[Junk]) -> None:
        """Publish all with QoS 1, in order, on one connection."""
        asyncio.run(self._say(junk))

    async def _say(self, junk: Sequence[Junk]) -> None:
        at = self.stack.endpoints
        context = ssl.create_default_context(cafile=at["ca_file"])
        context.load_cert_chain(self.chain, self.key)
        async with aiomqtt.Client(
            at["mqtt_host"],
            self.port,
            identifier=self.identifier,
            tls_context=context,
            protocol=aiomqtt.ProtocolVersion.V5,
            timeout=20,
        ) as client:
            for each in junk:
                topic = f"{at['topic_root']}/{self.device}/{each.topic}"
                await client.publish(topic, each.payload, qos=1)


def cloud_to(stack: Stack, device: str) -> Voice:
    """Return a voice that may say anything to *device*."""
    passes = stack.directory / "passes"
    port = stack.endpoints["mqtt_port"]
    return Voice(stack, device, port, passes / "cloud.pem", passes / "cloud.key.pem", f"junk-{uuid4()}")


@pytest.fixture(scope="module")
def stranger(memory_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Voice:
    """A device that has enrolled and runs no agent: it says what it likes."""
    identity = enrol(memory_stack, tmp_path_factory.mktemp("stranger"), "stranger") / "identity"
    device = json.loads((identity / "device.json").read_text())["device"]
    port = memory_stack.endpoints["device_mqtt_port"]
    return Voice(memory_stack, device, port, identity / "cert.pem", identity / "key.pem", device)


def test_an_agent_lives_on_and_answers_after_junk_on_every_topic(
    memory_stack: Stack, chance: random.Random
) -> None:
    device, pid = memory_stack.devices[1], memory_stack.pid("gateway-02")
    before = memory_stack.status(device)

    cloud_to(memory_stack, device).say([downward(chance) for _ in range(MESSAGES)])

    row = memory_stack.command(device, "ping", echo="alive")
    assert (row["status"], row["data"]["echo"]) == ("succeeded", "alive")
    assert memory_stack.pid("gateway-02") == pid
    after = memory_stack.status(device)
    assert after["presence"]["session"] == before["presence"]["session"], "junk ended the connection"
    for what in ("generation", "config_version"):
        assert after["reported"][what] == before["reported"][what]
    assert "Traceback" not in memory_stack.log("gateway-02")


def test_a_device_says_what_it_could_not_read(memory_stack: Stack) -> None:
    device, command = memory_stack.devices[1], str(uuid4())

    with listening(memory_stack, f"{device}/up/event/refused", f"{device}/up/result/restart/#") as heard:
        cloud_to(memory_stack, device).say(
            [Junk("down/desired", b'{"generation":'), Junk(f"down/command/restart/{command}", b"\xff")]
        )
        words = [heard.next(), heard.next()]

    refused = next(each for each in words if each.topic.endswith("refused")).payload
    answer = next(each for each in words if each.topic.endswith(command)).payload
    assert refused["data"]["problem"]["code"] == ErrorCode.PAYLOAD_JSON_SYNTAX
    assert (answer["status"], answer["error"]["code"]) == ("rejected", ErrorCode.PAYLOAD_NOT_UTF8)


def test_the_cloud_lives_on_and_keeps_junk_as_dead_letters(
    memory_stack: Stack, stranger: Voice, chance: random.Random
) -> None:
    pid = memory_stack.pid("cloud")
    last = {"up/reported": ErrorCode.PAYLOAD_JSON_SYNTAX, "up/telemetry/main": ErrorCode.PAYLOAD_NOT_UTF8}

    stranger.say([upward(chance) for _ in range(MESSAGES)])
    stranger.say([Junk("up/reported", b"{"), Junk("up/telemetry/main", b"\xff")])

    wanted = {(f"fleet/v1/{stranger.device}/{topic}", code) for topic, code in last.items()}
    until(lambda: wanted <= buried(stranger), "the last messages among the dead letters")
    codes = {code for _, code in buried(stranger)}
    assert len(codes) > 5
    assert codes <= set(ErrorCode) - {ErrorCode.INTERNAL}
    assert memory_stack.pid("cloud") == pid
    assert memory_stack.call("GET", "/health").is_success
    for device in memory_stack.devices:
        assert memory_stack.command(device, "ping")["status"] == "succeeded"


def buried(voice: Voice) -> set[tuple[str, str]]:
    """Return topic and code of each message of the voice's device that could not be read."""
    page = voice.stack.get("/edge/dead-letters", params={"limit": 1000})["dead_letters"]
    assert all(each["message"] for each in page)
    return {(each["topic"], each["code"]) for each in page if voice.device in each["topic"]}


def test_a_message_above_the_brokers_limit_costs_its_sender_alone(
    memory_stack: Stack, stranger: Voice
) -> None:
    letters = len(buried(stranger))

    for version in ("5", "311"):
        mosquitto_pub(
            [
                *("-h", memory_stack.endpoints["mqtt_host"], "-p", str(stranger.port), "-V", version),
                *("--cafile", str(memory_stack.endpoints["ca_file"])),
                *("--cert", str(stranger.chain), "--key", str(stranger.key)),
                *("-t", f"fleet/v1/{stranger.device}/up/reported"),
            ],
            b"x" * 2**21,
            expect=None,
        )

    for device in memory_stack.devices:
        assert memory_stack.command(device, "ping")["status"] == "succeeded"
    assert len(buried(stranger)) == letters
