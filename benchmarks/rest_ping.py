"""REST ping -> device -> REST, beside the bare MQTT round trip on the same broker, taken in turns."""

from __future__ import annotations

import asyncio
import socket
import ssl
import tempfile
import time
from pathlib import Path
from typing import Any

import aiomqtt
import httpx

from benchmarks._report import milliseconds, ratio
from tests.servers.stack import Stack, stack

_WARM_UP = 20
_ROUNDS = 300


def main() -> None:
    """Print both round trips and their ratio."""
    with (
        tempfile.TemporaryDirectory() as folder,
        stack(Path(folder), "--devices", "1", "--engine", "memory") as running,
    ):
        asyncio.run(_measure(running))


async def _measure(running: Stack) -> None:
    rest: list[float] = []
    bare: list[float] = []
    at = running.endpoints
    headers = {"Authorization": f"Bearer {at['api_key']}"}
    async with (
        httpx.AsyncClient(base_url=at["api_url"], headers=headers, timeout=30, trust_env=False) as http,
        _client(running, "bench-asker") as asker,
        _client(running, "bench-echo") as echo,
    ):
        root = f"{at['topic_root']}/bench"
        await echo.subscribe(f"{root}/there", qos=1)
        await asker.subscribe(f"{root}/back", qos=1)
        answering = asyncio.create_task(_answer(echo, root))
        for number in range(_WARM_UP + _ROUNDS):
            took = await _ping(http, running.devices[0])
            base = await _round_trip(asker, root)
            if number >= _WARM_UP:
                rest.append(took)
                bare.append(base)
        while not answering.done():  # a publish under way may swallow a cancellation
            answering.cancel()
            await asyncio.wait([answering], timeout=1)
    milliseconds("REST ping -> device -> REST", rest)
    milliseconds("bare MQTT round trip, QoS 1, TLS", bare)
    ratio("REST ping / bare round trip", rest, bare, aim="under 5")


def _client(running: Stack, name: str) -> aiomqtt.Client:
    at = running.endpoints
    context = ssl.create_default_context(cafile=at["ca_file"])
    passes = running.directory / "passes"
    context.load_cert_chain(passes / "cloud.pem", passes / "cloud.key.pem")
    return aiomqtt.Client(
        at["mqtt_host"],
        at["mqtt_port"],
        identifier=name,
        protocol=aiomqtt.ProtocolVersion.V5,
        tls_context=context,
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
    )


async def _answer(client: aiomqtt.Client, root: str) -> None:
    async for message in client.messages:
        await client.publish(f"{root}/back", message.payload, qos=1)


async def _round_trip(client: aiomqtt.Client, root: str) -> float:
    began = time.perf_counter()
    await client.publish(f"{root}/there", b'{"echo":"x"}', qos=1)
    async with asyncio.timeout(30):
        await anext(client.messages.__aiter__())
    return time.perf_counter() - began


async def _ping(http: httpx.AsyncClient, device: str) -> float:
    began = time.perf_counter()
    order: dict[str, Any] = {"name": "ping"}
    answer = await http.post(f"/edge/devices/{device}/commands", json=order, params={"wait": 10})
    took = time.perf_counter() - began
    assert answer.json()["data"]["status"] == "succeeded", answer.text
    return took
