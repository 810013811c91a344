"""The world behind the memory engine: images, containers, volumes, time; and the knobs to disturb it."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from string import hexdigits
from typing import NoReturn
from uuid import UUID

from device.engine.behaviour import Behaviour, Run, named_behaviour
from device.engine.protocol import (
    ContainerSpec,
    ContainerState,
    EngineEvent,
    EngineEventKind,
    EngineRefused,
    EngineUnreachable,
    ImageNotFound,
    NoSuchContainer,
)
from schemas.errors import ErrorCode, problem
from schemas.reported import Health, PublishedPort

KILLED = 137
_FIRST_FREE_PORT = 49153
_LOG_LINES = 10_000
_LONGEST_NAP = 0.5
_SHORT_ID = 12


class _Mood(Enum):
    UP = auto()
    DOWN = auto()
    HANGING = auto()


@dataclass(slots=True)
class Box:
    """One container, as the engine keeps it."""

    id: str
    name: str
    spec: ContainerSpec
    image_id: str
    created_at: datetime
    state: ContainerState = ContainerState.CREATED
    run: Run | None = None
    starts: int = 0
    finished_at: datetime | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    health: Health = Health.NONE
    forced_health: Health | None = None
    ports: tuple[PublishedPort, ...] = ()
    log: deque[tuple[datetime, str]] = field(default_factory=lambda: deque(maxlen=_LOG_LINES))
    printed: int = 0
    """Lines ever printed, also those the log no longer holds."""
    ticks: int = 0

    @property
    def service(self) -> str:
        """The service's name."""
        return self.spec.service.name

    @property
    def running(self) -> Run | None:
        """The present run, or None."""
        return self.run if self.state is ContainerState.RUNNING else None

    def print(self, at: datetime, line: str) -> None:
        """Append *line* to the log."""
        self.log.append((at, line))
        self.printed += 1

    def printed_after(self, count: int) -> list[str]:
        """Return the lines after the first *count* ever printed, as far as the log still holds them."""
        new = min(self.printed - count, len(self.log))
        return [text for _, text in list(self.log)[len(self.log) - new :]]


class World:
    """Everything one memory engine holds.

    The knobs are for whoever tests an agent; the rest is what `MemoryEngine` is
    made of. A container may be named by service, name or id.
    """

    def __init__(
        self, device: UUID, *, now: Callable[[], datetime], behaviours: Mapping[str, Behaviour]
    ) -> None:
        self.device = device
        self.now = now
        self.behaviours = dict(behaviours)
        self.images = {image for image, each in self.behaviours.items() if each.present}
        self.boxes: dict[str, Box] = {}
        self.volumes: dict[str, int] = {}
        """Named volumes, and how often a container that mounts them was started."""
        self.networks: set[str] = set()
        self.actions: deque[tuple[str, str]] = deque(maxlen=1000)
        """What the agent did, oldest first: `("pull", image)`, `("create", service)`, start, stop, remove."""
        self.readers: list[deque[EngineEvent]] = []
        self._made = 0
        self._taken_ports: set[int] = set()
        self._failing: dict[str, deque[ErrorCode]] = {}
        self._mood = _Mood.UP
        self._waiters: set[asyncio.Future[None]] = set()

    # Knobs: what the world does to the engine and behind the agent's back.

    def behave(self, image: str, behaviour: Behaviour) -> None:
        """Let *image* behave like this from the next pull, create or start on."""
        self.behaviours[image] = behaviour
        if behaviour.present:
            self.images.add(image)

    def kill(self, container: str, *, exit_code: int = KILLED) -> None:
        """End a running container, as a crash or `docker kill` would."""
        self.end(self.get(container), exit_code)

    def run_out_of_memory(self, container: str) -> None:
        """End a running container, as the kernel's OOM killer would."""
        box = self.get(container)
        self.end(box, KILLED)
        box.oom_killed = True

    def take_away(self, container: str) -> None:
        """Remove a container behind the agent's back, as `docker rm -f` would."""
        self.drop(self.get(container))

    def force_health(self, container: str, health: Health | None) -> None:
        """Let checks of a container find *health* whatever its behaviour; None: as it behaves."""
        self.get(container).forced_health = health
        self.settle()

    def say(self, container: str, line: str) -> None:
        """Let a container print *line*."""
        self.get(container).print(self.now(), line)
        self._ring()

    def forget_image(self, image: str) -> None:
        """Remove an image from the device."""
        self.images.discard(image)

    def take_port(self, port: int) -> None:
        """Let another program of the host listen on *port*."""
        self._taken_ports.add(port)

    def fail_next(self, call: str, *codes: ErrorCode) -> None:
        """Let the next calls of the engine's method *call* fail, one with each code."""
        self._failing.setdefault(call, deque()).extend(codes)

    def go_down(self) -> None:
        """Let the engine stop answering; containers run on, and readers of events are cut off."""
        self._mood = _Mood.DOWN
        self._ring()

    def hang(self) -> None:
        """Let every call wait until `come_up` or `go_down`."""
        self._mood = _Mood.HANGING

    def come_up(self) -> None:
        """Let the engine answer again."""
        self._mood = _Mood.UP
        self._ring()

    def settle(self) -> None:
        """Let everything happen that is due by now; waiting readers see it at once."""
        self._catch_up()
        self._ring()

    # What the engine is made of.

    async def admit(self, call: str = "") -> None:
        """Let a call in: waits while hanging, raises while down or where this call is to fail."""
        while self._mood is _Mood.HANGING:
            await self.nap()
        if self._mood is _Mood.DOWN:
            text = "the memory engine does not answer: it was told to be down"
            raise EngineUnreachable(problem(ErrorCode.ENGINE_UNREACHABLE, text))
        if failing := self._failing.get(call):
            fail(failing.popleft(), call)
        self._catch_up()

    def find(self, container: str) -> Box | None:
        """Return a container, or None."""
        if (box := self.boxes.get(container)) is not None:
            return box
        if len(container) >= _SHORT_ID and all(letter in hexdigits for letter in container):
            return next((each for key, each in self.boxes.items() if key.startswith(container)), None)
        return next((each for each in self.boxes.values() if container in {each.service, each.name}), None)

    def get(self, container: str) -> Box:
        """Return a container. Raises `NoSuchContainer`."""
        if (box := self.find(container)) is None:
            raise NoSuchContainer(problem(ErrorCode.SERVICE_UNKNOWN, f"there is no container {container}"))
        return box

    def behaviour(self, image: str) -> Behaviour:
        """Return how *image* behaves."""
        return self.behaviours.get(image) or named_behaviour(image)

    def add(self, name: str, spec: ContainerSpec) -> Box:
        """Make a container that is not running."""
        self._made += 1
        made = hashlib.sha256(f"{self.device}/{self._made}".encode()).hexdigest()
        box = Box(made, name, spec, digest(spec.service.image), self.now())
        self.boxes[made] = box
        return box

    def begin(self, box: Box, behaviour: Behaviour, mounted: Iterable[str]) -> None:
        """Start a container. Raises `EngineRefused` (`port.in_use`)."""
        box.ports = self._publish(box)
        now = self.now()
        box.starts += 1
        box.run = Run(behaviour, box.spec.service.health, now, box.starts)
        box.state = ContainerState.RUNNING
        box.exit_code, box.finished_at, box.oom_killed, box.ticks = None, None, False, 0
        box.health = box.run.health(now)
        volumes = list(mounted)
        for volume in volumes:
            self.volumes[volume] = self.volumes.get(volume, 0) + 1
        visits = self.volumes[volumes[0]] if volumes else 0
        for line in behaviour.lines:
            box.print(now, line.replace("{visits}", str(visits)))
        self._tell(box, EngineEventKind.STARTED, now)

    def end(self, box: Box, exit_code: int, at: datetime | None = None) -> None:
        """End a running container; nothing happens to one that does not run."""
        if box.running is None:
            return
        ended = at or self.now()
        box.state, box.exit_code, box.finished_at, box.ports = ContainerState.EXITED, exit_code, ended, ()
        self._tell(box, EngineEventKind.DIED, ended, exit_code)

    def drop(self, box: Box) -> None:
        """Remove a container, ending it first."""
        self.end(box, KILLED)
        del self.boxes[box.id]
        self._tell(box, EngineEventKind.REMOVED, self.now())

    def health(self, box: Box) -> Health:
        """Return what the engine's own check of a container says now."""
        if box.running is None:
            return Health.NONE
        found = box.running.health(self.now())
        return found if found is Health.NONE or box.forced_health is None else box.forced_health

    async def let_pass(self, seconds: float) -> None:
        """Return when the clock has moved on by *seconds*."""
        until = self.now() + timedelta(seconds=seconds)
        while (left := (until - self.now()).total_seconds()) > 0:
            await self.nap(left)

    async def nap(self, longest: float = _LONGEST_NAP) -> None:
        """Wait until something happens or is due, at most half a second of real time."""
        now = self.now()
        due = (box.running.next_change(now) for box in self.boxes.values() if box.running is not None)
        seconds = min([longest, _LONGEST_NAP, *(each for each in due if each is not None)])
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(max(seconds, 0.001)):
                await waiter
        except TimeoutError:
            pass
        finally:
            self._waiters.discard(waiter)

    def _catch_up(self) -> None:
        now = self.now()
        for box in list(self.boxes.values()):
            self._advance(box, now)

    def _advance(self, box: Box, now: datetime) -> None:
        run = box.running
        if run is None:
            return
        ends_at = run.ends_at()
        ended = ends_at is not None and ends_at <= now
        lines = run.lines_printed(ends_at if ends_at is not None and ended else now)
        while box.ticks < lines:
            box.ticks += 1
            at = run.started_at + timedelta(seconds=box.ticks * (run.behaviour.line_every or 0))
            box.print(at, f"line {box.ticks}")
            self._ring()
        if ended:
            self.end(box, run.behaviour.exit_code, ends_at)
        elif (health := self.health(box)) is not box.health:
            box.health = health
            self._tell(box, EngineEventKind.HEALTH, now)

    def _publish(self, box: Box) -> tuple[PublishedPort, ...]:
        taken = self._taken_ports | {port.host for each in self.boxes.values() for port in each.ports}
        free = (port for port in range(_FIRST_FREE_PORT, 65536) if port not in taken)
        published = []
        for wanted in box.spec.service.ports:
            if wanted.host in taken:
                text = f"starting {box.service}: port {wanted.host} of this device is taken; choose another"
                raise EngineRefused(problem(ErrorCode.PORT_IN_USE, text, element=str(wanted.host)))
            published.append(
                PublishedPort(
                    container=wanted.container,
                    host=wanted.host or next(free),
                    address=wanted.address,
                    protocol=wanted.protocol,
                )
            )
        return tuple(published)

    def _tell(self, box: Box, kind: EngineEventKind, at: datetime, exit_code: int | None = None) -> None:
        event = EngineEvent(kind, at, box.id, box.service, exit_code)
        for queue in self.readers:
            queue.append(event)
        self._ring()

    def _ring(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


def digest(image: str) -> str:
    """Return the digest of *image*: the same name has the same content here."""
    return f"sha256:{hashlib.sha256(image.encode()).hexdigest()}"


def fail(code: ErrorCode, what: str, *, element: str | None = None) -> NoReturn:
    """Raise what a real engine's door would raise for *code*."""
    error = problem(code, f"{what}: the memory engine was told to answer {code.value}", element=element)
    match code:
        case ErrorCode.ENGINE_UNREACHABLE:
            raise EngineUnreachable(error)
        case ErrorCode.IMAGE_NOT_FOUND:
            raise ImageNotFound(error)
        case ErrorCode.SERVICE_UNKNOWN:
            raise NoSuchContainer(error)
        case _:
            raise EngineRefused(error)
