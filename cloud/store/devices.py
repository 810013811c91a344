"""Devices: who is enrolled, what they are called, and the newest of what they said."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Case,
    ColumnElement,
    Table,
    Update,
    and_,
    bindparam,
    case,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from cloud.store.tables import DeviceRow
from schemas.base import MAX_COUNTER, jsonable
from schemas.desired import Target
from schemas.device import DeviceFacts
from schemas.errors import ErrorCode, refuse, shown
from schemas.presence import Online, Presence
from schemas.reported import Reported
from schemas.selector import Selector, parse_selector

_SCAN = 500
"""Rows read at once while a selector looks for its devices."""
_NAMED = 5
"""Unknown ids an error text names."""
_MAX_LABEL = 127
_UNSAFE = re.compile(r"[^A-Za-z0-9_. /:@+-]+")


_TABLE = cast("Table", DeviceRow.__table__)


def _at_least(column: ColumnElement[int], lifted: str) -> Case[int]:
    value = bindparam(lifted, type_=BigInteger)
    return case((column < value, value), else_=column)


_REPORTED = (
    update(_TABLE)
    .where(
        _TABLE.c.id == bindparam("device"),
        or_(_TABLE.c.reported.is_(None), _TABLE.c.revision < bindparam("told")),
    )
    .values(
        reported=bindparam("document"),
        revision=bindparam("told"),
        generation=_at_least(_TABLE.c.generation, "at_generation"),
        config_version=_at_least(_TABLE.c.config_version, "at_version"),
    )
    .returning(_TABLE.c.id)
)


@dataclass(frozen=True, slots=True)
class Page:
    """Some devices in the order of their ids, and where the next page starts: after *next*, if any."""

    rows: Sequence[DeviceRow]
    next: UUID | None


async def get(session: AsyncSession, device: UUID) -> DeviceRow | None:
    """Return the device, or None."""
    return await session.get(DeviceRow, device, populate_existing=True)


async def require(session: AsyncSession, device: UUID) -> DeviceRow:
    """Return the device. Raises FleetError `device.unknown`."""
    row = await get(session, device)
    if row is None:
        refuse(ErrorCode.DEVICE_UNKNOWN, f"no device with id {device} is enrolled; see `fleet devices`")
    return row


async def enrolled(session: AsyncSession, devices: Collection[UUID]) -> set[UUID]:
    """Return those of *devices* that are enrolled."""
    return set(await session.scalars(select(DeviceRow.id).where(DeviceRow.id.in_(devices))))


async def listing(
    session: AsyncSession,
    *,
    selector: Selector | None = None,
    online: bool | None = None,
    after: UUID | None = None,
    limit: int = 100,
) -> Page:
    """Return up to *limit* devices whose ids come after *after* and that fit."""
    found: list[DeviceRow] = []
    while True:
        statement = select(DeviceRow).order_by(DeviceRow.id).limit(_SCAN)
        if after is not None:
            statement = statement.where(DeviceRow.id > after)
        if online is not None:
            statement = statement.where(DeviceRow.online.is_(online))
        rows = list(await session.scalars(statement))
        found += [row for row in rows if selector is None or selector.matches(all_labels(row))]
        if len(found) > limit:
            return Page(found[:limit], found[limit - 1].id)
        if len(rows) < _SCAN:
            return Page(found, None)
        after = rows[-1].id


def all_labels(row: DeviceRow) -> dict[str, str]:
    """Return what a selector sees: the facts the device told, the labels people gave, its name and id.

    A label given by a person stands before a fact of the same name.
    """
    facts = DeviceFacts.model_validate((row.reported or {}).get("facts", {}))
    told = {
        "model": facts.model,
        "arch": facts.architecture,
        "hostname": facts.hostname,
        "os": facts.os,
        "name": row.name,
    }
    safe = {key: _label(text) for key, text in told.items()}
    return {**{key: text for key, text in safe.items() if text}, **row.labels, "device": str(row.id)}


def _label(text: str) -> str:
    """Return *text* as a label's value may be written."""
    return _UNSAFE.sub("-", text).strip("_. /:@+-")[:_MAX_LABEL].rstrip("_. /:@+-")


async def resolve_target(session: AsyncSession, target: Target) -> list[UUID]:
    """Return the devices *target* means, each once.

    Raises FleetError `device.unknown` (naming ids), `target.empty` or `selector.syntax`.
    """
    if target.devices is not None:
        wanted = list(dict.fromkeys(target.devices))
        known = await enrolled(session, wanted)
        unknown = [str(device) for device in wanted if device not in known]
        if unknown:
            more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
            message = f"not enrolled: {', '.join(unknown[:_NAMED])}{more}; see `fleet devices`"
            refuse(ErrorCode.DEVICE_UNKNOWN, message)
        return wanted
    selector = parse_selector(target.selector or "")
    page = await listing(session, selector=selector, limit=2**31)
    if not page.rows:
        message = f"no enrolled device matches {shown(target.selector)}; see `fleet devices`"
        refuse(ErrorCode.TARGET_EMPTY, message)
    return [row.id for row in page.rows]


async def hold(session: AsyncSession, device: UUID) -> DeviceRow:
    """Return the device for a change that rests on what it is now: nobody else changes it until the commit.

    Call it first in a transaction. Raises FleetError `device.unknown`.
    """
    lock = update(DeviceRow).where(DeviceRow.id == device).values(name=DeviceRow.name)
    await session.execute(lock.execution_options(synchronize_session=False))
    return await require(session, device)


async def seen(session: AsyncSession, devices: Iterable[UUID], now: datetime) -> None:
    """Note that something just came from *devices*; a row that is being changed just now is left out."""
    free = select(DeviceRow.id).where(DeviceRow.id.in_(list(devices))).with_for_update(skip_locked=True)
    await session.execute(
        update(DeviceRow)
        .where(DeviceRow.id.in_(free))
        .values(seen_at=now)
        .execution_options(synchronize_session=False)
    )


async def record_presence(session: AsyncSession, device: UUID, presence: Presence) -> bool:
    """Store *presence*; return whether it was news.

    The rule is `Presence.is_news`: an offline word of an older session comes from a will that was left
    behind by a connection the device has long replaced.
    """
    offline = presence.status is Online.OFFLINE
    news = or_(DeviceRow.presence.is_(None), DeviceRow.session < presence.session)
    if offline:
        news = or_(news, and_(DeviceRow.session == presence.session, DeviceRow.online))
    return await _changed(
        session,
        update(DeviceRow)
        .where(DeviceRow.id == device, news)
        .values(presence=jsonable(presence), online=not offline, session=presence.session),
    )


async def reports(session: AsyncSession, devices: Collection[UUID]) -> dict[UUID, Reported]:
    """Return the newest reports of those of *devices* that have reported."""
    statement = select(_TABLE.c.id, _TABLE.c.reported).where(_TABLE.c.id.in_(devices))
    found = await session.execute(statement)
    return {device: Reported.model_validate(told) for device, told in found if told is not None}


async def record_reported(session: AsyncSession, device: UUID, reported: Reported) -> bool:
    """Store *reported*; return whether it was news: a revision not higher than the stored one is old.

    A device that knows a higher generation or version than the cloud (whose database was restored
    from a backup) lifts the cloud's count, so that the next order is news to it.
    """
    values = {
        "device": device,
        "document": jsonable(reported),
        "told": reported.revision,
        "at_generation": _room(reported.generation),
        "at_version": _room(reported.config_version),
    }
    return await session.scalar(_REPORTED, values) is not None


def _room(value: int) -> int:
    """Return *value*, or what lifts no count if it would leave a count no room to grow."""
    return value if value <= MAX_COUNTER // 2 else -1


async def _changed(session: AsyncSession, statement: Update) -> bool:
    changed = statement.returning(DeviceRow.id).execution_options(synchronize_session=False)
    return await session.scalar(changed) is not None
