"""Telemetry from the broker into the metrics database, acknowledged only when it is there.

One worker: it gathers messages of all devices, writes their points at once, moves
each stream's mark on, tells the devices (the watermark lets them trim their spools)
and only then sends PUBACK. While a database is away it holds what it has and takes
no more. Killed at any step it gets the same messages again; storing a point, moving
a mark and telling a watermark twice change nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from random import Random
from typing import Any, NoReturn, TypeVar
from uuid import UUID

from cloud.backoff import pause
from cloud.bus import Broker, Bus, Incoming
from cloud.ingest.decode import Batch, Reject, decode
from cloud.ingest.series import Breadth
from cloud.ingest.track import Track, begin, caught_up, stored
from cloud.metrics.protocol import Metrics, PartialWrite, Point
from cloud.store import dead_letters, devices, streams
from cloud.store.database import Database
from cloud.store.streams import Mark, Stream
from schemas import topics
from schemas.base import print_time, to_wire
from schemas.errors import ErrorCode, FleetError, problem
from schemas.telemetry import Watermark
from schemas.topics import Topics

log = logging.getLogger(__name__)

GROUP = "ingest"
"""Workers share the load under this name (MQTT 5 shared subscription)."""
MAX_POINTS = 5000
MAX_DELAY = 0.1
"""Seconds the first message of a write may wait for company."""
IN_HAND = 256
"""Messages taken from the broker and not acknowledged; with a payload's limit this bounds the memory."""
_SUSPICIOUS = 5
"""Failures in a row after which a database that works otherwise clears itself of the blame."""
_OURS = "the fault is ours; the log has the details"
_TRACKS = 50_000
_ENROLLED = 200_000

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Arrived:
    incoming: Incoming
    batch: Batch


class Ingest:
    """One ingest worker with a broker session of its own."""

    def __init__(
        self,
        broker: Broker,
        topics_: Topics,
        *,
        database: Database,
        metrics: Metrics,
        now: Callable[[], datetime],
        random: Random,
    ) -> None:
        self._topics = topics_
        self._database = database
        self._metrics = metrics
        self._now = now
        self._random = random
        self._arrived: asyncio.Queue[_Arrived] = asyncio.Queue(IN_HAND)
        self._tracks: dict[Stream, Track] = {}
        self._enrolled: set[UUID] = set()
        self._breadth = Breadth()
        self._bus = Bus(
            broker,
            topics_,
            filters=[topics_.shared(GROUP, topics.Telemetry)],
            handler=self._take,
            in_hand=IN_HAND,
            random=random,
        )

    @property
    def connected(self) -> bool:
        """Whether samples can come in."""
        return self._bus.connected

    async def run(self) -> NoReturn:
        """Take, store and acknowledge, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._bus.run(), name="ingest link")
            while True:
                arrived = await self._gather()
                for each in await self._store(arrived):
                    each.incoming.ack()

    async def _take(self, arrived: Sequence[Incoming]) -> None:
        for incoming in arrived:
            batch = decode(incoming.topic, incoming.payload, known=self._topics, now=self._now())
            await self._arrived.put(_Arrived(incoming, batch))

    async def _gather(self) -> list[_Arrived]:
        """Return messages for one write: enough of them, or those that came in time."""
        found = [await self._arrived.get()]
        points = len(found[0].batch.points)
        try:
            async with asyncio.timeout(MAX_DELAY):
                while points < MAX_POINTS and len(found) < IN_HAND:
                    found.append(await self._arrived.get())
                    points += len(found[-1].batch.points)
        except TimeoutError:
            pass
        return found

    async def _store(self, arrived: Sequence[_Arrived]) -> Sequence[_Arrived]:
        """Bring *arrived* into both databases, tell the devices, and return them."""
        known = await self._patiently(lambda: self._enrolled_of(arrived))
        batches = await self._write([self._bounded(_only_enrolled(each, known)) for each in arrived])
        await self._tell(await self._see_through(batches))
        return arrived

    async def _see_through(self, batches: Sequence[Batch]) -> dict[Stream, Track]:
        """Return how far the streams are once *batches* are recorded, however long the database is away.

        Where that fails for another reason they are recorded one by one; one that fails alone is put aside,
        and its device is not told of it.
        """
        failures = 0
        while failures < _SUSPICIOUS or not await self._database_works():
            try:
                tracks = await self._record(batches)
            except FleetError as error:
                failures += 1
                await self._hold(error, failures)
            except Exception:
                log.exception("recording %d batches met a fault of ours", len(batches))
                break
            else:
                self._remember(tracks)
                return tracks
        if len(batches) == 1:
            await self._patiently(lambda: self._put_aside(batches[0]))
            return {}
        tracks = {}
        for batch in batches:
            tracks |= await self._see_through([batch])
        return tracks

    async def _put_aside(self, batch: Batch) -> None:
        """Keep a batch as a dead letter. Its device is looked for anew: it may have been deleted."""
        if batch.stream is not None:
            self._enrolled.discard(batch.stream.device)
        content = json.dumps([_shown(point) for point in batch.points]).encode()
        letters = [Reject(content, problem(ErrorCode.INTERNAL, _OURS)), *batch.rejects]
        async with self._database.session() as session:
            for letter in letters:
                await dead_letters.add(session, batch.topic, letter.payload, letter.problem, self._now())

    def _remember(self, tracks: Mapping[Stream, Track]) -> None:
        for stream, track in tracks.items():
            self._tracks.pop(stream, None)
            self._tracks[stream] = track
        while len(self._tracks) > _TRACKS:
            del self._tracks[next(iter(self._tracks))]

    async def _enrolled_of(self, arrived: Sequence[_Arrived]) -> set[UUID]:
        """Return which devices may be heard. One that is deleted later fails at its row's key instead."""
        asked = {each.batch.stream.device for each in arrived if each.batch.stream is not None}
        if len(self._enrolled) > _ENROLLED:
            self._enrolled.clear()
        if unknown := asked - self._enrolled:
            async with self._database.session() as session:
                self._enrolled |= await devices.enrolled(session, unknown)
        return asked & self._enrolled

    def _bounded(self, batch: Batch) -> Batch:
        return _without(batch, self._breadth.beyond(batch.points), ErrorCode.TELEMETRY_SERIES_LIMIT)

    async def _write(self, batches: list[Batch]) -> list[Batch]:
        """Write every point; return the batches without the points that no second try would store."""
        points = [point for batch in batches for point in batch.points]
        if not points:
            return batches
        try:
            await self._patiently(lambda: self._metrics.write(points))
        except PartialWrite as error:
            return [
                _without(batch, {id(each.point): each.reason for each in error.refused}) for batch in batches
            ]
        except Exception:
            log.exception("a write of %d points met a fault of ours", len(points))
            if len(batches) == 1:
                return [_without(batches[0], {id(point): _OURS for point in points})]
            return [each for batch in batches for each in await self._write([batch])]
        return batches

    async def _record(self, batches: Sequence[Batch]) -> dict[Stream, Track]:
        """Move the marks on and keep what was rejected, in one transaction; return the streams' tracks."""
        now = self._now()
        async with self._database.session() as session:
            wanted = {batch.stream for batch in batches if batch.stream is not None}
            marks = await streams.marks(session, wanted) if wanted else {}
            before = {stream: self._tracks[stream] for stream in wanted & self._tracks.keys()}
            for stream, mark in marks.items():  # another worker may have been further
                before[stream] = caught_up(before.get(stream, Track(mark.seq)), mark.seq, mark.lost)
            after = dict(before)
            for batch in batches:
                if batch.stream is not None:
                    track = after.get(batch.stream) or begin(batch.seq, batch.oldest)
                    after[batch.stream] = stored(track, batch.seq, batch.oldest)
                for reject in batch.rejects:
                    await dead_letters.add(session, batch.topic, reject.payload, reject.problem, now)
            for stream in sorted(after, key=str):
                if stream not in before or after[stream].seq > before[stream].seq:
                    await streams.advance(session, stream, Mark(after[stream].seq, after[stream].lost), now)
                if stream not in before:
                    await streams.forget_old(session, stream.device)
            if wanted:
                await devices.seen(session, {stream.device for stream in wanted}, now)
        return after

    async def _tell(self, tracks: dict[Stream, Track]) -> None:
        """Publish the watermarks; a device that misses one sends again and is told again."""
        for stream, track in tracks.items():
            watermark = Watermark(boot=stream.boot, seq=track.seq)
            try:
                await self._bus.publish(topics.Ack(stream.device, stream.name), to_wire(watermark))
            except FleetError as error:
                log.info("watermarks are told later: %s", error)
                return

    async def _patiently(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Return what *attempt* returns, however long its database is away."""
        failures = 0
        while True:
            try:
                return await attempt()
            except PartialWrite:
                raise
            except FleetError as error:
                failures += 1
                await self._hold(error, failures)

    async def _hold(self, error: FleetError, failures: int) -> None:
        log.warning("nothing is acknowledged until this is over: %s", error)
        await asyncio.sleep(pause(failures, random=self._random))

    async def _database_works(self) -> bool:
        try:
            await self._database.check()
        except FleetError:
            return False
        return True


def _only_enrolled(arrived: _Arrived, known: set[UUID]) -> Batch:
    batch = arrived.batch
    if batch.stream is None or batch.stream.device in known:
        return batch
    message = f"no device with id {batch.stream.device} is enrolled"
    reject = Reject(arrived.incoming.payload, problem(ErrorCode.DEVICE_UNKNOWN, message))
    return Batch(batch.topic, None, rejects=[reject])


def _without(batch: Batch, reasons: Mapping[int, str], code: ErrorCode = ErrorCode.METRICS_REFUSED) -> Batch:
    """Return *batch* with the points that *reasons* names (by identity) among its rejects."""
    refused = [point for point in batch.points if id(point) in reasons]
    if not refused:
        return batch
    why = problem(code, f"{len(refused)} points: {reasons[id(refused[0])]}")
    reject = Reject(json.dumps([_shown(point) for point in refused]).encode(), why)
    kept = [point for point in batch.points if id(point) not in reasons]
    return replace(batch, points=kept, rejects=[*batch.rejects, reject])


def _shown(point: Point) -> dict[str, Any]:
    return {
        "at": print_time(point.at),
        "measurement": point.measurement,
        "tags": dict(point.tags),
        "fields": dict(point.fields),
    }
