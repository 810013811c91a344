"""What becomes of readable messages of enrolled devices: rows, and entries of the diary."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cloud.consumers import occurrences, presence, reported, results
from cloud.consumers.reading import Said
from cloud.store import devices
from cloud.store.database import Session
from cloud.store.events import Entry
from schemas import topics
from schemas.commands import CommandResult, LogChunk
from schemas.presence import Presence
from schemas.reported import DeviceEvent, Reported


async def record(session: Session, said: Sequence[Said], now: datetime) -> list[Entry]:
    """Store *said* in its order; return what is to be added to the diary, last in the transaction."""
    entries: list[Entry] = []
    reporting = {each.topic.device for each in said if isinstance(each.topic, topics.Reported)}
    before = await devices.reports(session, reporting) if reporting else {}
    for each in said:
        match each.topic, each.content:
            case topics.Reported(device=device), Reported() as report:
                found = await reported.record(session, device, report, before.get(device), now)
                if found is not None:
                    before[device] = report
                    entries += found
            case _:
                entries += await _one(session, each, now)
    return entries


async def _one(session: Session, said: Said, now: datetime) -> Sequence[Entry]:
    match said.topic, said.content:
        case topics.Presence(device=device), Presence() as word:
            return await presence.record(session, device, word, now)
        case topics.Result() as topic, CommandResult() as result:
            return await results.record(session, topic, result, now)
        case topics.Event() as topic, DeviceEvent() as occurrence:
            return [occurrences.entry(topic, occurrence, now)]
        case topics.Alert() as topic, dict() | None as alert:
            return [occurrences.alert_entry(topic, alert, now)]
        case topics.Chunk() as topic, LogChunk() as chunk:
            return [occurrences.chunk_entry(topic, chunk, now)]
        case _:
            raise AssertionError(f"{type(said.topic).__name__} with {type(said.content).__name__}")
