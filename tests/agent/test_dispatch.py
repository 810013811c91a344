"""Whatever arrives, the agent goes on: junk is refused with a reason, orders reach those they are for."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device.database import StorageFailed
from device.dispatch import Dispatcher
from device.events import Events
from device.inbox import MOST_COMMANDS, MOST_STATES, Arrival, Inbox
from device.link import LinkDown
from schemas import topics
from schemas.base import to_wire
from schemas.commands import CommandName
from schemas.config import AgentConfig, Config
from schemas.desired import Desired, Release
from schemas.errors import ErrorCode
from schemas.reported import DeviceEvent, EventKind
from schemas.telemetry import Watermark
from schemas.topics import Topics
from tests.agent.bench import DEVICE, Bench, Line, bench, now

ROOT = Topics()
COMMAND = UUID("5d1b4a8e-3c1f-4f7e-9a51-2f4f7f1f6a10")


@dataclass
class Desk:
    """A dispatcher and what came out of it."""

    device: Bench
    dispatcher: Dispatcher
    woken: list[str] = field(default_factory=list)
    watermarks: list[tuple[str, Watermark]] = field(default_factory=list)

    async def give(self, topic: str, payload: bytes, *, retained: bool = False) -> None:
        await self.dispatcher.handle(Arrival(topic, payload, retained))

    async def refusal(self) -> DeviceEvent:
        topic = topics.Event(DEVICE, EventKind.REFUSED.value)
        await self.device.line.until(lambda: bool(self.device.line.of(topic, DeviceEvent)))
        return self.device.line.of(topic, DeviceEvent)[-1]


@asynccontextmanager
async def a_desk(folder: Path) -> AsyncIterator[Desk]:
    async with bench(folder) as device, device.serving() as server, asyncio.TaskGroup() as group:
        woken: list[str] = []
        watermarks: list[tuple[str, Watermark]] = []

        async def on_watermark(stream: str, watermark: Watermark) -> None:
            watermarks.append((stream, watermark))

        events = Events(DEVICE, link=device.line, now=now)
        sending = group.create_task(events.run())
        dispatcher = Dispatcher(
            device=DEVICE,
            topics=ROOT,
            journal=device.journal,
            server=server,
            events=events,
            on_orders=lambda: woken.append("orders"),
            on_watermark=on_watermark,
            now=now,
        )
        yield Desk(device, dispatcher, woken, watermarks)
        sending.cancel()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with a_desk(tmp_path) as ready:
        yield ready


def desired(generation: int = 1) -> bytes:
    release = Release(name="shop", version="1", services=[])
    return to_wire(Desired(generation=generation, release_id=uuid4(), release=release, issued_at=now()))


DESIRED, CONFIG = ROOT.print(topics.Desired(DEVICE)), ROOT.print(topics.Config(DEVICE))


async def test_a_desired_state_is_journalled_and_wakes_the_keeper_once(desk: Desk) -> None:
    await desk.give(DESIRED, desired(1), retained=True)
    await desk.give(DESIRED, desired(1), retained=True)

    assert desk.woken == ["orders"]
    stored = await desk.device.journal.desired()
    assert stored is not None
    assert stored.generation == 1


async def test_a_configuration_is_applied_and_told(desk: Desk) -> None:
    await desk.give(CONFIG, to_wire(Config(version=3, agent=AgentConfig(telemetry_interval=2))))
    await desk.give(CONFIG, to_wire(Config(version=2)))

    assert (await desk.device.journal.config()).agent.telemetry_interval == 2
    assert desk.woken == ["orders"]
    told = topics.Event(DEVICE, EventKind.CONFIG_APPLIED.value)
    await desk.device.line.until(lambda: len(desk.device.line.of(told, DeviceEvent)) == 1)


async def test_a_cleared_retained_topic_orders_nothing(desk: Desk) -> None:
    await desk.give(DESIRED, b"")
    await desk.give(CONFIG, b"")

    assert desk.woken == []


async def test_a_watermark_reaches_its_stream(desk: Desk) -> None:
    watermark = Watermark(boot=uuid4(), seq=7)
    await desk.give(ROOT.print(topics.Ack(DEVICE, "main")), to_wire(watermark))

    assert desk.watermarks == [("main", watermark)]


@pytest.mark.parametrize(
    ("topic", "payload", "code"),
    [
        (DESIRED, b"{", ErrorCode.PAYLOAD_JSON_SYNTAX),
        (DESIRED, b'{"generatoin": 1}', ErrorCode.FIELD_UNKNOWN),
        (CONFIG, b'{"agent": {"log_level": "loud"}}', ErrorCode.VALUE_WRONG_TYPE),
        (ROOT.print(topics.Ack(DEVICE, "main")), b"[]", ErrorCode.VALUE_WRONG_TYPE),
        (f"fleet/v1/{DEVICE}/down/nothing", b"", ErrorCode.TOPIC_UNKNOWN),
        (f"fleet/v1/{DEVICE}/down/command/restart/not-an-id", b"", ErrorCode.TOPIC_UNKNOWN),
        (f"fleet/v1/{DEVICE}/up/reported", b"{}", ErrorCode.TOPIC_UNKNOWN),
        (f"fleet/v1/{uuid4()}/down/desired", b"{}", ErrorCode.DEVICE_MISMATCH),
        ("elsewhere", b"{}", ErrorCode.TOPIC_UNKNOWN),
    ],
)
async def test_what_cannot_be_read_is_told_as_a_refused_event(
    desk: Desk, topic: str, payload: bytes, code: ErrorCode
) -> None:
    await desk.give(topic, payload)
    event = await desk.refusal()

    assert event.data["problem"]["code"] == code
    assert event.data["topic"] == topic


WORDS = st.sampled_from(
    ["down", "up", "command", "desired", "config", "ack", "main", *CommandName, "x", "", "+"]
)
TOPICS = st.one_of(
    st.text(max_size=600),
    st.lists(st.one_of(WORDS, st.text(max_size=5), st.uuids(version=4).map(str)), max_size=6).map(
        lambda words: "/".join([f"fleet/v1/{DEVICE}", *words])
    ),
    st.sampled_from(
        [DESIRED, CONFIG, *(f"fleet/v1/{DEVICE}/down/command/{name}/{COMMAND}" for name in CommandName)]
    ),
)
KEYS = st.sampled_from(["service", "tail", "follow", "deadline", "issued_at", "generation", "version"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["service", "tail", "follow", "deadline", "issued_at", "generation", "release", "version"]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


PAYLOADS = st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            TOPICS, st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()), st.booleans()
        ),
        max_size=12,
    )
)
def test_no_junk_ever_ends_the_agent(messages: list[tuple[str, bytes, bool]]) -> None:
    async def scene() -> None:
        with TemporaryDirectory() as folder:
            async with a_desk(Path(folder)) as desk:
                for topic, payload, retained in messages:
                    await desk.give(topic, payload, retained=retained)
                ping = uuid4()
                await desk.give(ROOT.print(topics.Command(DEVICE, "ping", ping)), b"")
                await desk.device.line.answer(ping)

    asyncio.run(scene())


async def test_the_inbox_keeps_the_newest_state_and_the_order_of_commands() -> None:
    inbox = Inbox()
    commands = [Arrival(f"fleet/v1/{DEVICE}/down/command/ping/{number}", b"") for number in range(3)]
    for each in [commands[0], Arrival(DESIRED, b"old"), commands[1], Arrival(DESIRED, b"new"), commands[2]]:
        inbox.put(each)

    taken = [await inbox.take() for _ in range(4)]

    assert taken == [Arrival(DESIRED, b"new"), *commands]


async def test_the_inbox_is_bounded_and_counts_what_it_drops() -> None:
    inbox = Inbox()
    for number in range(MOST_COMMANDS + 5):
        inbox.put(Arrival(f"fleet/v1/{DEVICE}/down/command/ping/{number}", b""))
    for number in range(MOST_STATES + 2):
        inbox.put(Arrival(f"fleet/v1/{DEVICE}/down/ack/{number}", b""))

    assert inbox.dropped == 7


async def test_taking_waits_for_the_next_message() -> None:
    inbox = Inbox()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        taker = group.create_task(inbox.take())
        await asyncio.sleep(0)
        inbox.put(Arrival(DESIRED, b"x"))

    assert taker.result() == Arrival(DESIRED, b"x")


async def test_an_order_that_the_disk_refuses_is_not_lost(desk: Desk) -> None:
    inbox = Inbox()
    inbox.put(Arrival(DESIRED, desired(3), retained=True))
    await desk.device.fill_disk("desired")

    with pytest.raises(StorageFailed):
        await desk.dispatcher.run(inbox)
    await desk.device.free_disk()
    await desk.dispatcher.handle(await inbox.take())

    stored = await desk.device.journal.desired()
    assert stored is not None
    assert stored.generation == 3


async def test_what_waits_again_never_replaces_a_newer_state() -> None:
    inbox = Inbox()
    inbox.put(Arrival(DESIRED, desired(5)))
    inbox.put_back(Arrival(DESIRED, b"older"))

    assert (await inbox.take()).payload != b"older"


class BrokenLine(Line):
    """Breaks as a real connection does: a publish fails at once, before the link itself has noticed."""

    async def publish(self, topic: topics.Topic, payload: bytes, *, expiry: timedelta | None = None) -> None:
        del expiry
        if self.broken:
            raise LinkDown("the socket is gone")
        await super().publish(topic, payload)

    broken = True


async def test_events_leave_the_loop_to_others_while_the_connection_breaks() -> None:
    line = BrokenLine()
    events = Events(DEVICE, link=line, now=now)
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(events.run())
        events.tell(EventKind.SERVICE_STARTED, "web", "web started", {})
        await asyncio.sleep(0)
        line.broken = False
        await line.until(lambda: len(line.sent) == 1)
        sending.cancel()
