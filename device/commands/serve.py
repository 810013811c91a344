"""Carries commands out: each id has its effect at most once, whatever is repeated, late or interrupted.

The order is the point. Accepted is journalled, then said; before acting, what
is the case is journalled; the answer is journalled, then said. Wherever the
agent dies, `resume` finds enough to go on from.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from uuid import UUID

from device.commands.admit import InHand, Refuse, Repeat, Run, Stored, admit, digest, expired, late
from device.commands.handlers import logs, services
from device.commands.handlers.diagnostics import diagnostics
from device.commands.handlers.inspect import inspect
from device.commands.handlers.ping import ping
from device.commands.ledger import Ledger
from device.commands.resume import Resume, evidence, resume
from device.commands.tools import Answer, Tools
from device.commands.voice import Voice
from device.database import StorageFailed
from device.engine.protocol import Container, EngineUnreachable
from device.inbox import Arrival
from schemas import topics
from schemas.commands import (
    Arguments,
    Cancel,
    Command,
    CommandResult,
    CommandStatus,
    Diagnostics,
    Inspect,
    Logs,
    Ping,
    Restart,
    Start,
    Stop,
    read_command,
)
from schemas.errors import ErrorCode, FailureClass, FleetError, Problem, Unreadable, problem, refuse

log = logging.getLogger(__name__)

RUNNING = 8
WAITING = 64
MARGIN = timedelta(seconds=30)
"""How long after its deadline a command that has begun may take."""
ENGINE_PATIENCE = timedelta(seconds=60)
"""How long an interrupted command waits for the engine after a restart of the agent."""
_ENGINE_PAUSE = 0.5
"""Seconds between two looks for it."""


class Server:
    """Takes commands in, carries them out, answers. `run` comes first; `receive` waits for `resumed`."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._ledger = Ledger(tools.journal.database)
        self._quick = asyncio.Semaphore(RUNNING)
        self._streams = asyncio.Semaphore(RUNNING)
        self._followed: dict[UUID, asyncio.Event] = {}
        self._in_hand = 0
        self._warned = False
        self.resumed = asyncio.Event()

    async def run(self) -> None:
        """End what an earlier agent began, set `resumed`, then serve until cancelled."""
        self.resumed.clear()
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._voice = Voice(self._tools.device, self._tools.link, self._ledger, group, self._tools.now)
            async with asyncio.TaskGroup() as unfinished:
                for stored in await self._ledger.unanswered():
                    log.info("%s %s was interrupted; ending it", stored.command.name, stored.id)
                    lasting = stored.status is CommandStatus.ACCEPTED and _is_followed(stored.command)
                    (group if lasting else unfinished).create_task(self._serve(stored))
            self.resumed.set()
            await self._voice.redeliver()

    async def receive(self, topic: topics.Command, arrival: Arrival) -> None:
        """Deal with one message on a command's topic; returns once it is journalled, not once it is done."""
        if arrival.retained:
            self._ignore_retained(arrival)
            return
        await self.resumed.wait()
        try:
            await self._decide(topic, arrival)
        except StorageFailed as error:
            self._refuse(topic, arrival, CommandStatus.FAILED, error.problem)

    async def _decide(self, topic: topics.Command, arrival: Arrival) -> None:
        now = self._tools.now()
        asked = _read(topic, arrival, now=now)
        match admit(asked, await self._ledger.find(topic.id), now):
            case Run() if self._in_hand >= RUNNING + WAITING:
                text = f"{self._in_hand} commands are in hand; send it again later"
                self._refuse(topic, arrival, CommandStatus.REJECTED, problem(ErrorCode.COMMAND_BUSY, text))
            case Run(command=command):
                await self._accept(command, arrival)
            case Repeat(answer=answer):
                self._voice.refuse(topic, answer, arrival.response_topic, arrival.correlation)
            case InHand(status=status):
                self._voice.say(topic.command, topic.id, status)
            case Refuse(status=status, problem=found):
                self._refuse(topic, arrival, status, found)

    async def _accept(self, command: Command, arrival: Arrival) -> None:
        stored = Stored(
            command=command,
            digest=digest(command),
            status=CommandStatus.ACCEPTED,
            received=self._tools.now(),
            response_topic=arrival.response_topic,
            correlation=arrival.correlation,
        )
        self._in_hand += 1
        try:
            await self._ledger.accept(stored)
        except BaseException:
            self._in_hand -= 1
            raise
        self._voice.say(command.name.value, command.id, CommandStatus.ACCEPTED)
        self._group.create_task(self._serve_counted(stored), name=f"{command.name} {command.id}")

    async def _serve_counted(self, stored: Stored) -> None:
        try:
            await self._serve(stored)
        finally:
            self._in_hand -= 1

    async def _serve(self, stored: Stored) -> None:
        """Carry out, journal the answer, say it. The service stays reserved until the answer is on disk.

        Otherwise a later command on the service could be done before an earlier
        one is known to be over, and a crash between would have the earlier again.
        """
        room = self._streams if _is_followed(stored.command) else self._quick
        async with room, AsyncExitStack() as held:
            result = await self._result(stored, held)
            try:
                await self._ledger.answer(stored.id, result)
            except StorageFailed as error:
                log.error("the answer to %s is not kept: %s", stored.id, error)  # noqa: TRY400
        log.info("%s %s: %s %s", stored.command.name, stored.id, result.status, result.error or result.detail)
        self._voice.answer(stored, result)

    async def _result(self, stored: Stored, held: AsyncExitStack) -> CommandResult:
        """Return the final word on a command; whatever goes wrong becomes one."""
        try:
            arguments = stored.command.parsed()
            await self._reserve(arguments, stored, held)
            async with asyncio.timeout(self._time_for(stored)):
                answer = await self._begin(arguments, stored)
        except _TooLate:
            return self._failed(late(stored.command, self._tools.now()), CommandStatus.EXPIRED)
        except TimeoutError:
            text = f"not done {MARGIN.total_seconds():.0f} s after the deadline; it may still take effect"
            return self._failed(problem(ErrorCode.COMMAND_EXPIRED, text, failure_class=FailureClass.AGENT))
        except FleetError as error:
            return self._failed(error.problem)
        except Exception:  # the outermost loop of one command: a fault of ours must not end the others
            log.exception("%s %s", stored.command.name, stored.id)
            return self._failed(problem(ErrorCode.INTERNAL, "the agent failed; its log says where"))
        data = None if answer.data is None else dict(answer.data)
        return CommandResult(
            status=CommandStatus.SUCCEEDED, at=self._tools.now(), detail=answer.detail[:2000], data=data
        )

    async def _reserve(self, arguments: Arguments, stored: Stored, held: AsyncExitStack) -> None:
        """Wait for the service, if the command acts on one. Raises `_TooLate` if it may no longer begin."""
        begun = stored.status is CommandStatus.STARTED
        if isinstance(arguments, Start | Stop | Restart):
            try:
                async with asyncio.timeout(None if begun else self._left(stored.command)):
                    await held.enter_async_context(self._tools.keeper.reserve(arguments.service))
            except TimeoutError:
                raise _TooLate from None
        if not begun and expired(stored.command, self._tools.now()):
            raise _TooLate

    def _left(self, command: Command, more: timedelta = timedelta(0)) -> float:
        return max(0.0, (command.deadline + more - self._tools.now()).total_seconds())

    def _time_for(self, stored: Stored) -> float:
        """Return the seconds that acting may take; an interrupted command is ended however late it is."""
        least = ENGINE_PATIENCE + MARGIN if stored.status is CommandStatus.STARTED else timedelta(0)
        return max(least.total_seconds(), self._left(stored.command, MARGIN))

    async def _begin(self, arguments: Arguments, stored: Stored) -> Answer:
        """Journal what is the case, then act; what only looks may be done again and needs no such note."""
        if stored.status is CommandStatus.STARTED:
            return await self._resume(arguments, stored)
        if isinstance(arguments, Start | Stop | Restart):
            before = evidence(await self._tools.engine.containers(), arguments.service)
            await self._ledger.start(stored.id, before)
        elif _is_followed(stored.command):
            await self._ledger.start(stored.id, {})
        self._voice.say(stored.command.name.value, stored.id, CommandStatus.STARTED)
        return await self._act(arguments, stored.command)

    async def _resume(self, arguments: Arguments, stored: Stored) -> Answer:
        containers: list[Container] = []
        if isinstance(arguments, Start | Stop | Restart):
            containers = await self._containers_once_there()
        match resume(arguments, stored.before, containers):
            case Resume.AGAIN:
                answer = await self._act(arguments, stored.command)
            case Resume.CONFIRM:
                answer = Answer(f"{stored.command.name} took place; confirmed after the agent restarted")
            case Resume.GIVE_UP:
                refuse(ErrorCode.COMMAND_INTERRUPTED, "interrupted by a restart of the agent; send it again")
        return answer

    async def _containers_once_there(self) -> list[Container]:
        give_up = self._tools.now() + ENGINE_PATIENCE
        while True:
            try:
                return await self._tools.engine.containers()
            except EngineUnreachable:
                if self._tools.now() >= give_up:
                    raise
            await asyncio.sleep(_ENGINE_PAUSE)

    async def _act(self, arguments: Arguments, command: Command) -> Answer:  # noqa: PLR0911 - one line each
        match arguments:
            case Ping(echo=echo):
                return ping(echo, self._tools)
            case Start(service=service):
                return await services.start(service, self._tools)
            case Stop(service=service):
                return await services.stop(service, self._tools)
            case Restart(service=service):
                return await services.restart(service, self._tools)
            case Logs(follow=True):
                return await self._follow(arguments, command)
            case Logs():
                return await logs.tail(arguments, self._tools)
            case Inspect(service=service):
                return await inspect(service, self._tools)
            case Diagnostics():
                return await diagnostics(self._tools)
            case Cancel(id=command_id):
                return self._cancel(command_id)

    async def _follow(self, wanted: Logs, command: Command) -> Answer:
        enough = self._followed[command.id] = asyncio.Event()
        timer = asyncio.get_running_loop().call_later(self._left(command), enough.set)
        try:
            return await logs.follow(wanted, command.id, enough, self._tools)
        finally:
            timer.cancel()
            del self._followed[command.id]

    def _cancel(self, command_id: UUID) -> Answer:
        if command_id not in self._followed:
            text = f"{command_id} is not a log being followed; only that can be cancelled"
            refuse(ErrorCode.COMMAND_REFUSED, text)
        self._followed[command_id].set()
        return Answer(f"{command_id} ends")

    def _failed(self, found: Problem, status: CommandStatus = CommandStatus.FAILED) -> CommandResult:
        return CommandResult(status=status, at=self._tools.now(), detail=str(found)[:2000], error=found)

    def _refuse(self, topic: topics.Command, arrival: Arrival, status: CommandStatus, found: Problem) -> None:
        log.info("%s %s: %s, %s", topic.command, topic.id, status, found)
        result = self._failed(found, status)
        self._voice.refuse(topic, result, arrival.response_topic, arrival.correlation)

    def _ignore_retained(self, arrival: Arrival) -> None:
        if not self._warned:
            log.warning("ignoring retained commands, such as %s; publish them without retain", arrival.topic)
        self._warned = True


class _TooLate(Exception):  # noqa: N818 - says what is the case
    """The deadline passed before the command could begin."""


def _read(topic: topics.Command, arrival: Arrival, *, now: datetime) -> Command | Problem:
    try:
        return read_command(topic.command, topic.id, arrival.payload, now=now)
    except Unreadable as error:
        return error.problem


def _is_followed(command: Command) -> bool:
    return bool(command.arguments.get("follow"))
