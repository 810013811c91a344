"""What becomes of readable messages of enrolled devices: rows, and entries of the diary."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

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
    """Store *said*; return what is to be added to the diary, in its order and last in the transaction.

    Each device's messages are stored in their order, and the devices in the order of their ids, as orders
    to many devices are: two transactions that lock the same rows then wait for each other only one way.
    """
    found: dict[int, Sequence[Entry]] = {}
    reporting = {each.topic.device for each in said if isinstance(each.topic, topics.Reported)}
    before = await devices.reports(session, reporting) if reporting else {}
    for place, each in sorted(enumerate(said), key=_by_device):
        match each.topic, each.content:
            case topics.Reported(device=device), Reported() as report:
                told = await reported.record(session, device, report, before.get(device), now)
                if told is not None:
                    before[device] = report
                    found[place] = told
            case _:
                found[place] = await _one(session, each, now)
    return [entry for place in sorted(found) for entry in found[place]]


def _by_device(placed: tuple[int, Said]) -> UUID:
    return placed[1].topic.device


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
