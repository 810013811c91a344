"""The cloud's door to the broker: one durable MQTT 5 session.

Messages come to one handler, in their order and as many at once as have arrived
while it was busy. PUBACK is sent only when the handler is done with a message (or
says so later, see `Incoming.ack`). What a process had in hand when it died is
delivered again, and a handler that waits for a database holds the broker back
instead of filling the memory. Messages of QoS 0 cannot be held back; a queue of
them that grows too long is cut.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any, NoReturn

import aiomqtt
from paho.mqtt.client import ConnectFlags, MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from cloud import backoff
from schemas.delivery import DELIVERY
from schemas.errors import ErrorCode, FleetError, problem
from schemas.reading import MAX_PAYLOAD
from schemas.topics import BROKER_UPTIME, DownTopic, Topics

log = logging.getLogger(__name__)

SESSION_EXPIRY = timedelta(days=7)
"""How long the broker keeps a stopped cloud's messages, if it keeps them at all that long."""
PATIENCE = 10.0
"""Seconds the broker may take for one answer."""
UNPROMISED = 2000
"""Messages of QoS 0 that may wait for the handler; further ones are dropped, as their sender must expect."""
_REFUSED = 0x80
_AT_ONCE = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)
"""Else the second of two small messages waits 40 ms for the broker's TCP to acknowledge the first."""
_SEND_ALWAYS = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE
_SEND_IF_NEW = SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
_UPTIME = (BROKER_UPTIME, SubscribeOptions(qos=0, retainHandling=_SEND_ALWAYS))


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is, and who asks."""

    host: str
    port: int
    client: str
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Incoming:
    """One message. `retained`: it was waiting for the subscription, so it says nothing about *now*."""

    topic: str
    payload: bytes
    retained: bool
    ack: Callable[[], None]
    """Tell the broker that the message is done with; later calls, and calls after a reconnect, do nothing."""


Handler = Callable[[Sequence[Incoming]], Awaitable[None]]


class Bus:
    """A link that is made again whenever it breaks. `run` keeps it; the rest may be called at any time."""

    def __init__(
        self,
        broker: Broker,
        topics: Topics,
        *,
        filters: Sequence[str],
        states: Sequence[str] = (),
        handler: Handler,
        in_hand: int = 200,
        random: Random,
    ) -> None:
        """Take at most *in_hand* messages that are not acknowledged yet; *handler* acknowledges each.

        What is retained on *states* comes with every connection, so that nothing missed stays missed;
        what is retained on *filters* comes only when the broker does not know us.
        """
        self._broker = broker
        self._topics = topics
        self._wanted = [
            *((each, SubscribeOptions(qos=1, retainHandling=_SEND_ALWAYS)) for each in states),
            *((each, SubscribeOptions(qos=1, retainHandling=_SEND_IF_NEW)) for each in filters),
        ]
        self._handler = handler
        self._in_hand = in_hand
        self._random = random
        self._client: _Client | None = None
        self._forgotten = 0

    @property
    def connected(self) -> bool:
        """Whether the broker is there and our subscriptions stand."""
        return self._client is not None

    @property
    def forgotten(self) -> int:
        """How often the broker met us as a stranger: what it kept for the fleet may be gone, too."""
        return self._forgotten

    @property
    def broker_uptime(self) -> timedelta | None:
        """How long the broker has been running, to a second; None: not connected, or it does not tell."""
        started = None if self._client is None else self._client.broker_started
        return None if started is None else timedelta(seconds=asyncio.get_running_loop().time() - started)

    async def run(self) -> NoReturn:
        """Keep the link up; connect with full jitter. Errors of *handler* come out."""
        failures = 0
        while True:
            try:
                await self._live()
            except (aiomqtt.MqttError, OSError) as error:
                failures = 1 if self._client is not None else failures + 1
                self._client = None
                wait = backoff.pause(failures, random=self._random)
                log.warning("%s: no broker (%s); next try in %.1f s", self._broker.client, error, wait)
                await asyncio.sleep(wait)
            finally:
                self._client = None

    async def publish(self, topic: DownTopic, payload: bytes, *, expiry: timedelta | None = None) -> None:
        """Return when the broker took the message; its kind of topic says how it travels.

        Raises FleetError `broker.unreachable` or `payload.too_large`.
        """
        if len(payload) > MAX_PAYLOAD:
            message = f"{len(payload)} bytes for {topic}; the limit is {MAX_PAYLOAD}"
            raise FleetError(problem(ErrorCode.PAYLOAD_TOO_LARGE, message))
        client = self._client
        if client is None:
            raise _unreachable("not connected")
        delivery = DELIVERY[type(topic)]
        lifetime = expiry or delivery.expiry
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if lifetime is not None:
            properties.MessageExpiryInterval = max(1, int(lifetime.total_seconds()))
        try:
            async with asyncio.timeout(PATIENCE) as wait:
                client.waiting.add(wait)
                await client.publish(
                    self._topics.print(topic),
                    payload,
                    qos=delivery.qos,
                    retain=delivery.retained,
                    properties=properties,
                    timeout=math.inf,  # `wait` bounds it; aiomqtt's own bound may swallow a cancellation
                )
        except TimeoutError as error:
            raise _unreachable("no answer") from error
        except (aiomqtt.MqttError, OSError) as error:
            raise _unreachable(str(error)) from error
        finally:
            client.waiting.discard(wait)

    async def _live(self) -> None:
        """Connect, subscribe whatever the broker remembers, and handle messages until the link breaks."""
        async with _Client(self._broker, in_hand=self._in_hand) as client:
            codes = await client.subscribe([*self._wanted, _UPTIME])
            refused = [
                wanted
                for (wanted, _), code in zip(self._wanted, codes[:-1], strict=True)
                if _number(code) >= _REFUSED
            ]
            _heed_cancellation()
            if refused:
                raise aiomqtt.MqttError(f"the broker refuses the subscription to {', '.join(refused)}")
            if not client.session_present:
                self._forgotten += 1
            self._client = client
            log.info("%s: connected to %s:%s", self._broker.client, self._broker.host, self._broker.port)
            try:
                while True:
                    await self._handler(await client.arrived())
            finally:
                client.wake()


class _Client(aiomqtt.Client):
    """Adds to aiomqtt what a careful consumer needs: acknowledgements in its own hand, session present."""

    def __init__(self, broker: Broker, *, in_hand: int) -> None:
        self.session_present = False
        self.broker_started: float | None = None
        """By the event loop's clock."""
        self._dropped = 0
        self.waiting: set[asyncio.Timeout] = set()
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = int(SESSION_EXPIRY.total_seconds())
        properties.ReceiveMaximum = in_hand
        super().__init__(
            broker.host,
            broker.port,
            identifier=broker.client,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            properties=properties,
            tls_context=broker.tls,
            timeout=PATIENCE,
            keepalive=30,
            socket_options=_AT_ONCE,
            logger=logging.getLogger(f"{__name__}.wire"),
        )
        self.pending_calls_threshold = 1000
        self._client.manual_ack_set(on=True)

    def wake(self) -> None:
        """End every wait for a PUBACK: the connection it would come on is gone."""
        now = asyncio.get_running_loop().time()
        for wait in self.waiting:
            wait.reschedule(now)

    async def arrived(self) -> list[Incoming]:
        """Return everything that has arrived, at least one message. Raises MqttError when the link breaks."""
        found = [await anext(self.messages)]
        while not self._queue.empty():
            found.append(self._queue.get_nowait())
        return [self._incoming(message) for message in found]

    def _incoming(self, message: aiomqtt.Message) -> Incoming:
        """Return *message* with the means to acknowledge it on this very connection."""
        acknowledged = False

        def ack() -> None:
            nonlocal acknowledged
            if not acknowledged:
                acknowledged = True
                self._client.ack(message.mid, message.qos)

        payload = message.payload
        return Incoming(
            topic=message.topic.value,
            payload=payload if isinstance(payload, bytes) else str(payload or "").encode(),
            retained=bool(message.retain),
            ack=ack,
        )

    def _on_message(self, client: Any, userdata: Any, message: MQTTMessage) -> None:
        if message.topic == BROKER_UPTIME:
            self._note_uptime(bytes(message.payload))
        elif message.qos == 0 and self._queue.qsize() >= UNPROMISED:
            self._dropped += 1
            if self._dropped.bit_count() == 1:
                log.warning("%d messages of QoS 0 were dropped on this connection", self._dropped)
        else:
            super()._on_message(client, userdata, message)

    def _note_uptime(self, payload: bytes) -> None:
        """Note when the broker started: the earliest that follows, for what it retains is not of now."""
        seconds = payload.partition(b" ")[0]
        if seconds.isdigit():
            started = asyncio.get_running_loop().time() - int(seconds[:15])
            known = self.broker_started
            self.broker_started = started if known is None else min(started, known)

    def _on_connect(
        self,
        client: Any,
        userdata: Any,
        flags: ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        self.session_present = flags.session_present
        super()._on_connect(client, userdata, flags, reason_code, properties)


def _heed_cancellation() -> None:
    """Raise what `asyncio.wait_for` may have swallowed while aiomqtt connected.

    Up to Python 3.11 it returns a result that comes at the same moment as a cancellation.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _number(code: object) -> int:
    return int(code.value if isinstance(code, ReasonCode) else str(code))


def _unreachable(why: str) -> FleetError:
    return FleetError(problem(ErrorCode.BROKER_UNREACHABLE, f"the broker did not take the message: {why}"))
