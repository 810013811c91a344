"""Clients for broker tests: aiomqtt for sessions, mosquitto_pub for the reason codes it prints."""

import asyncio
import socket
import ssl
from collections.abc import Callable

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.servers.mosquitto import HOST, Mosquitto, Pass

CONNACK = b"\x20"
DENIED = "Not authorized"
_CONNECT = bytes.fromhex("101000044d5154540502003c000003616263")  # MQTT 5, Clean Start, client id "abc"
_PATIENCE = 10.0


def on_devices_port(
    broker: Mosquitto, who: Pass, *, identifier: str | None = None, session: float = 0
) -> aiomqtt.Client:
    """Return a client for the devices listener; its session lasts *session* seconds more."""
    return _client(broker.devices_port, who, identifier=identifier, session=session)


def on_services_port(
    broker: Mosquitto, who: Pass, *, identifier: str | None = None, session: float = 0
) -> aiomqtt.Client:
    """Return a client for the services listener."""
    return _client(broker.services_port, who, identifier=identifier, session=session)


def _client(port: int, who: Pass, *, identifier: str | None, session: float) -> aiomqtt.Client:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = int(session)
    return aiomqtt.Client(
        HOST,
        port,
        identifier=identifier,
        protocol=aiomqtt.ProtocolVersion.V5,
        tls_context=who.tls(),
        clean_start=session == 0,
        properties=properties,
        timeout=_PATIENCE,
    )


async def next_message(client: aiomqtt.Client) -> aiomqtt.Message:
    """Return the next message, or fail within seconds."""
    async with asyncio.timeout(_PATIENCE):
        return await anext(aiter(client.messages))


async def messages(client: aiomqtt.Client, *, until: str) -> list[str]:
    """Return the topics received up to and including *until*."""
    topics: list[str] = []
    while not topics or topics[-1] != until:
        topics.append(str((await next_message(client)).topic))
    return topics


async def publish(port: int, who: Pass, topic: str, *options: str) -> str:
    """Publish with mosquitto_pub, MQTT 5 and QoS 1; return what it complained about, empty for success."""
    _, complaint = await publish_with(port, who.arguments(), topic, "-V", "5", *options)
    return complaint


async def publish_with(port: int, arguments: list[str], topic: str, *options: str) -> tuple[int, str]:
    """Run mosquitto_pub with QoS 1; return its exit code and what it complained about."""
    body = [] if "-f" in options else ["-m", "x"]
    process = await asyncio.create_subprocess_exec(
        "mosquitto_pub", "-h", HOST, "-p", str(port), *arguments, "-q", "1", "-t", topic, *body, *options,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(_PATIENCE):
        _, complaint = await process.communicate()
    assert process.returncode is not None
    return process.returncode, complaint.decode().strip()


async def lets_in(port: int, context: ssl.SSLContext) -> bool:
    """Say whether a listener completes the handshake."""
    try:
        return (await first_answer(port, context)).startswith(CONNACK)
    except (ssl.SSLError, ConnectionError):
        return False


async def first_answer(port: int, context: ssl.SSLContext, connect: bytes = _CONNECT) -> bytes:
    """Return what the broker says to a CONNECT packet, empty if it hangs up; then vanish without DISCONNECT.

    In TLS 1.3 the client's certificate is judged after the client is done, so a refusal arrives only with
    the first read: hence a question first.
    """

    def ask() -> bytes:
        with (
            socket.create_connection((HOST, port), timeout=_PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            secured.sendall(connect)
            return secured.recv(1024)

    return await asyncio.to_thread(ask)


async def served_certificate(port: int, context: ssl.SSLContext) -> bytes:
    """Return the certificate a listener shows, DER."""

    def look() -> bytes:
        with (
            socket.create_connection((HOST, port), timeout=_PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            return secured.getpeercert(binary_form=True) or b""

    return await asyncio.to_thread(look)


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until *holds*, or fail within seconds."""
    async with asyncio.timeout(_PATIENCE):
        while not holds():  # noqa: ASYNC110 - the broker's files and log send no events
            await asyncio.sleep(0.05)
