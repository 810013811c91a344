"""The agent's only door to the broker: MQTT 5 over mutual TLS, one session that outlives connections.

What paho and aiomqtt leave to us: paho tells why a TLS handshake broke to its
logger alone; a publish that waits for its PUBACK is not woken when the
connection breaks; the client's queue drops what does not fit, after the PUBACK.
So the logger is listened to, waiting publishes are woken, and each message is
handed on at once, without a queue.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Protocol
from uuid import UUID

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from device import VERSION
from device.backoff import next_attempt, pause
from device.inbox import Arrival
from device.link_errors import Ear, explain
from schemas import topics
from schemas.base import to_wire
from schemas.delivery import DELIVERY
from schemas.errors import ErrorCode, refuse
from schemas.presence import Online, Presence
from schemas.reading import MAX_PAYLOAD
from schemas.topics import Topic, Topics

log = logging.getLogger(__name__)

SESSION_EXPIRY = timedelta(days=7)
_ANSWER_WITHIN = 10.0
_GOODBYE_WITHIN = 1.0
_AT_ONCE = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)
"""Else the second of two small messages waits 40 ms for the broker's TCP to acknowledge the first."""
_FAILED = 0x80
"""MQTT 5 reason codes from here on mean failure."""


class LinkDown(Exception):  # noqa: N818 - says what is the case
    """There is no connection, or it broke before the broker confirmed."""


class Outbound(Protocol):
    """What the rest of the agent may ask of the link."""

    async def publish(self, topic: Topic, payload: bytes, *, expiry: timedelta | None = None) -> None:
        """Publish and return once the broker has confirmed. Raises `LinkDown`.

        QoS, retention and default expiry come from `schemas.delivery`. A payload
        over the limit is refused (`payload.too_large`) before it is sent.
        """

    async def connected(self) -> int:
        """Wait until there is a connection; return its session number, which grows with each."""

    async def reconnected(self, after: int) -> int:
        """Wait until there is a connection with a session number above *after*; return it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the broker is and who we are there."""

    host: str
    port: int
    device: UUID
    topics: Topics
    chain: Path
    key: Path
    ca: Path
    keepalive: int = 30


@dataclass(frozen=True, slots=True)
class LinkStats:
    """What the link has done since the agent started."""

    connections: int = 0
    published: int = 0
    received: int = 0
    session: int | None = None
    last_error: str = ""


@dataclass(slots=True)
class _Live:
    """The connection of the moment and everyone who waits for its answers."""

    client: aiomqtt.Client
    session: int
    waiting: set[asyncio.Timeout] = field(default_factory=set)


class Link:
    """Keeps one MQTT session alive over connections that come and go."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        boot: UUID,
        next_session: Callable[[], Awaitable[int]],
        now: Callable[[], datetime],
        rng: Random,
    ) -> None:
        self._endpoint = endpoint
        self._boot = boot
        self._next_session = next_session
        self._now = now
        self._rng = rng
        self._live: _Live | None = None
        self._came_up = asyncio.Condition()
        self._connections = self._published = self._received = 0
        self._last_error = ""

    @property
    def stats(self) -> LinkStats:
        """Counters for diagnostics and the agent's own metrics."""
        session = None if self._live is None else self._live.session
        return LinkStats(self._connections, self._published, self._received, session, self._last_error)

    async def publish(self, topic: Topic, payload: bytes, *, expiry: timedelta | None = None) -> None:
        """See `Outbound.publish`."""
        delivery = DELIVERY[type(topic)]
        await self._publish(
            self._endpoint.topics.print(topic),
            payload,
            qos=delivery.qos,
            retain=delivery.retained,
            properties=_publish_properties(expiry or delivery.expiry),
        )

    async def reply(self, response_topic: str, payload: bytes, correlation: bytes | None) -> None:
        """Publish to a request's response topic; nothing happens outside this device's `up/` tree."""
        if not self._endpoint.topics.in_up_tree(response_topic, self._endpoint.device):
            log.warning("ignored a response topic outside this device's own tree: %r", response_topic[:200])
            return
        properties = _publish_properties(DELIVERY[topics.Result].expiry)
        if correlation is not None:
            properties.CorrelationData = correlation
        await self._publish(response_topic, payload, qos=1, retain=False, properties=properties)

    async def connected(self) -> int:
        """See `Outbound.connected`."""
        return await self.reconnected(after=-1)

    async def reconnected(self, after: int) -> int:
        """See `Outbound.reconnected`."""
        async with self._came_up:
            await self._came_up.wait_for(lambda: self._live is not None and self._live.session > after)
            assert self._live is not None  # noqa: S101 - no await since the condition held
            return self._live.session

    async def run(self, on_message: Callable[[Arrival], None]) -> None:
        """Stay connected until cancelled, handing each message to *on_message*, which must return at once.

        Ends with an orderly goodbye. Subscribes anew on every connection,
        whatever the broker says it remembers.
        """
        attempt = 0
        while True:
            began = self._now()
            try:
                await self._one_connection(on_message)
            except (aiomqtt.MqttError, LinkDown, OSError) as error:
                _stop_if_cancelled()
                self._note(error)
            attempt = next_attempt(attempt, self._now() - began)
            await asyncio.sleep(pause(attempt, self._rng.random()).total_seconds())

    async def _one_connection(self, on_message: Callable[[Arrival], None]) -> None:
        session = await self._next_session()
        context = await asyncio.to_thread(_tls, self._endpoint)
        ear = Ear()
        try:
            async with self._client(session, context, ear, on_message) as client:
                await self._subscribe(client)
                async with self._lifetime(client, session):
                    log.info("connected to %s:%d", self._endpoint.host, self._endpoint.port)
                    await self._until_it_breaks(client, session)
        except (aiomqtt.MqttError, OSError):
            if ear.heard:
                raise aiomqtt.MqttError(ear.heard) from None
            raise

    async def _until_it_breaks(self, client: aiomqtt.Client, session: int) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._say(Online.ONLINE, session))
                async for _ in client.messages:  # none come this way; it raises when the connection breaks
                    pass
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from several.exceptions[0].__cause__

    def _client(
        self, session: int, context: ssl.SSLContext, ear: Ear, on_message: Callable[[Arrival], None]
    ) -> aiomqtt.Client:
        def receive(message: aiomqtt.Message) -> None:
            self._received += 1
            on_message(_arrival(message))

        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = int(SESSION_EXPIRY.total_seconds())
        endpoint = self._endpoint
        client = aiomqtt.Client(
            endpoint.host,
            endpoint.port,
            identifier=str(endpoint.device),
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            properties=properties,
            keepalive=endpoint.keepalive,
            tls_context=context,
            timeout=_ANSWER_WITHIN,
            logger=ear.logger,
            queue_type=_straight_to(receive),
            socket_options=_AT_ONCE,
            will=aiomqtt.Will(
                endpoint.topics.print(topics.Presence(endpoint.device)),
                self._presence(Online.OFFLINE, session),
                qos=1,
                retain=True,
            ),
        )
        client.pending_calls_threshold = 10_000
        return client

    async def _subscribe(self, client: aiomqtt.Client) -> None:
        codes = await client.subscribe(self._endpoint.topics.down(self._endpoint.device), qos=1)
        for code in codes:
            if isinstance(code, ReasonCode) and code.value >= _FAILED:
                raise aiomqtt.MqttError(f"the broker refused the subscription: {code}")

    @asynccontextmanager
    async def _lifetime(self, client: aiomqtt.Client, session: int) -> AsyncIterator[None]:
        """Let others publish within; wake those who wait for an answer when it is over."""
        _stop_if_cancelled()
        live = _Live(client, session)
        async with self._came_up:
            self._live = live
            self._connections += 1
            self._last_error = ""
            self._came_up.notify_all()
        try:
            yield
        except asyncio.CancelledError:
            await self._goodbye(session)
            raise
        finally:
            self._live = None
            at_once = asyncio.get_running_loop().time()
            for each in live.waiting:
                each.reschedule(at_once)

    async def _goodbye(self, session: int) -> None:
        try:
            async with asyncio.timeout(_GOODBYE_WITHIN):
                await self._say(Online.OFFLINE, session)
        except (LinkDown, TimeoutError):
            log.info("stopped without a goodbye; the broker publishes the last will")

    async def _say(self, word: Online, session: int) -> None:
        await self.publish(topics.Presence(self._endpoint.device), self._presence(word, session))

    def _presence(self, word: Online, session: int) -> bytes:
        return to_wire(
            Presence(status=word, session=session, boot=self._boot, agent_version=VERSION, at=self._now())
        )

    async def _publish(
        self, topic: str, payload: bytes, *, qos: int, retain: bool, properties: Properties
    ) -> None:
        if len(payload) > MAX_PAYLOAD:
            refuse(
                ErrorCode.PAYLOAD_TOO_LARGE, f"{len(payload)} bytes for {topic}; the limit is {MAX_PAYLOAD}"
            )
        live = self._live
        if live is None:
            raise LinkDown("not connected")
        try:
            async with asyncio.timeout(_ANSWER_WITHIN) as wait:
                live.waiting.add(wait)
                await live.client.publish(
                    topic,
                    payload,
                    qos=qos,
                    retain=retain,
                    properties=properties,
                    timeout=math.inf,  # aiomqtt's own bound loses a cancellation that meets the PUBACK
                )
        except (aiomqtt.MqttError, TimeoutError) as error:
            raise LinkDown(str(error) or "the broker did not confirm") from error
        finally:
            live.waiting.discard(wait)
        self._published += 1

    def _note(self, error: Exception) -> None:
        text = explain(str(error.__cause__ or error))
        if text != self._last_error:
            log.warning("no connection to %s:%d: %s", self._endpoint.host, self._endpoint.port, text)
        self._last_error = text


def _stop_if_cancelled() -> None:
    """Heed a cancellation that was lost below: `wait_for` of Python 3.11 does that, and so may a time-out."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _straight_to(sink: Callable[[aiomqtt.Message], None]) -> type[asyncio.Queue[aiomqtt.Message]]:
    """Return a queue that keeps nothing: each message goes to *sink* while paho still holds it."""

    class Handover(asyncio.Queue[aiomqtt.Message]):
        def put_nowait(self, item: aiomqtt.Message) -> None:
            sink(item)

    return Handover


def _tls(endpoint: Endpoint) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=endpoint.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(endpoint.chain, endpoint.key)
    return context


def _publish_properties(expiry: timedelta | None) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if expiry is not None:
        properties.MessageExpiryInterval = max(1, int(expiry.total_seconds()))
    return properties


def _arrival(message: aiomqtt.Message) -> Arrival:
    properties = message.properties
    return Arrival(
        topic=str(message.topic),
        payload=message.payload if isinstance(message.payload, bytes) else b"",
        retained=message.retain,
        response_topic=getattr(properties, "ResponseTopic", None),
        correlation=getattr(properties, "CorrelationData", None),
    )
