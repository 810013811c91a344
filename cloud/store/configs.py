"""Configurations of devices, version by version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from cloud.store import deployments, releases
from cloud.store.merge_patch import merged
from cloud.store.tables import ConfigRow, DeviceRow
from schemas.base import to_wire
from schemas.config import Config
from schemas.errors import ErrorCode, refuse
from schemas.reading import MAX_PAYLOAD, fit

_ENVELOPE = 1024
"""Bytes kept free for what is added when it is published."""


async def change(
    session: AsyncSession,
    devices: Sequence[UUID],
    *,
    agent: Mapping[str, Any],
    services: Mapping[str, Any],
    by: str,
    now: datetime,
) -> dict[UUID, int]:
    """Change the configuration of *devices* by two JSON merge patches; return each one's new version.

    All devices or none. Raises `Unreadable` (`field.unknown` and such) where the outcome is no
    configuration, and FleetError `config.unknown_service` where a device has no such service.
    """
    versions = await _next_versions(session, devices)
    for device, version in versions.items():
        await _refuse_unknown_services(session, device, services)
        row = await newest(session, device)
        earlier = {} if row is None else row.document
        patched = {
            "version": version,
            "agent": merged(earlier.get("agent", {}), agent),
            "services": merged(earlier.get("services", {}), services),
        }
        config = fit(Config, patched)
        if (size := len(to_wire(config))) > MAX_PAYLOAD - _ENVELOPE:
            message = f"device {device}: the configuration would take {size} bytes; remove some of it"
            refuse(ErrorCode.PAYLOAD_TOO_LARGE, message)
        session.add(
            ConfigRow(
                device=device,
                version=version,
                document=config.model_dump(mode="json", exclude_defaults=True),
                issued_at=now,
                created_by=by,
            )
        )
    await session.flush()
    return versions


async def newest(session: AsyncSession, device: UUID) -> ConfigRow | None:
    """Return the configuration *device* was last given, or None."""
    return (await session.scalars(_newest().where(ConfigRow.device == device))).one_or_none()


def config_of(row: ConfigRow) -> Config:
    """Return *row* as it is published."""
    document = Config.model_validate(row.document)
    return document.model_copy(update={"version": row.version, "issued_at": row.issued_at})


async def unpublished(session: AsyncSession, limit: int) -> Sequence[ConfigRow]:
    """Return configurations that count (the newest of their device) and that the broker does not have."""
    statement = _newest().where(ConfigRow.published_at.is_(None)).order_by(ConfigRow.issued_at).limit(limit)
    return (await session.scalars(statement)).all()


async def published(session: AsyncSession, rows: Sequence[ConfigRow], now: datetime) -> None:
    """Note that the broker took *rows*.

    Rows that others are changing are left out, as to wait for several could lock both up; they are
    published once more.
    """
    key = tuple_(ConfigRow.device, ConfigRow.version)
    statement = select(ConfigRow.device, ConfigRow.version).where(
        key.in_([(row.device, row.version) for row in rows])
    )
    free = (await session.execute(statement.with_for_update(skip_locked=True))).all()
    await session.execute(
        update(ConfigRow)
        .where(key.in_([tuple(each) for each in free]))
        .values(published_at=now)
        .execution_options(synchronize_session=False)
    )


async def publish_again(session: AsyncSession) -> None:
    """Take every configuration that counts for unpublished: the broker lost what it kept."""
    await session.execute(
        update(ConfigRow)
        .where(ConfigRow.published_at.is_not(None), ConfigRow.version == _highest())
        .values(published_at=None)
        .execution_options(synchronize_session=False)
    )


async def publish_unheard(session: AsyncSession, now: datetime, *, patience: timedelta) -> None:
    """Take a configuration for unpublished if its online device has not applied it within *patience*."""
    applied = DeviceRow.reported["config_version"].as_numeric(20, 0)
    behind = select(DeviceRow.id).where(
        DeviceRow.online,
        DeviceRow.id == ConfigRow.device,
        or_(DeviceRow.reported.is_(None), func.coalesce(applied, 0) < ConfigRow.version),
    )
    await session.execute(
        update(ConfigRow)
        .where(
            ConfigRow.published_at < now - patience,
            ConfigRow.version == _highest(),
            behind.exists(),
        )
        .values(published_at=None)
        .execution_options(synchronize_session=False)
    )


async def record_applied(session: AsyncSession, device: UUID, version: int, now: datetime) -> bool:
    """Note that *device* runs *version*, and so has got over every older one; return whether it was news."""
    statement = (
        update(ConfigRow)
        .where(ConfigRow.device == device, ConfigRow.version <= version, ConfigRow.applied_at.is_(None))
        .values(applied_at=now)
        .returning(ConfigRow.version)
        .execution_options(synchronize_session=False)
    )
    return bool((await session.scalars(statement)).all())


async def _refuse_unknown_services(session: AsyncSession, device: UUID, patch: Mapping[str, Any]) -> None:
    """Refuse names no service bears; a null only takes away, so it may name a service that is gone."""
    named = [name for name, value in patch.items() if value is not None]
    if not named:
        return
    desired = await deployments.newest(session, device)
    known: set[str] = set()
    if desired is not None:
        release = releases.release_of(await releases.require(session, desired.release_id))
        known = {service.name for service in release.services}
    for name in named:
        if name not in known:
            has = f"it has {', '.join(sorted(known))}" if known else "it has none yet; deploy a release first"
            message = f"device {device} has no service {name!r}; {has}"
            refuse(ErrorCode.CONFIG_UNKNOWN_SERVICE, message, field=f"services.{name}"[:300])


async def _next_versions(session: AsyncSession, devices: Sequence[UUID]) -> dict[UUID, int]:
    """Raise each device's number by one; rows are locked in one order, so that two orders never lock up."""
    await session.execute(
        select(DeviceRow.id).where(DeviceRow.id.in_(devices)).order_by(DeviceRow.id).with_for_update()
    )
    statement = (
        update(DeviceRow)
        .where(DeviceRow.id.in_(devices))
        .values(config_version=DeviceRow.config_version + 1)
        .returning(DeviceRow.id, DeviceRow.config_version)
        .execution_options(synchronize_session=False)
    )
    numbers = {row.id: row.config_version for row in await session.execute(statement)}
    return {device: numbers[device] for device in devices if device in numbers}


def _highest() -> Any:
    """Return the highest version given to the row's device, as a part of a statement."""
    other = ConfigRow.__table__.alias("other")
    return select(func.max(other.c.version)).where(other.c.device == ConfigRow.device).scalar_subquery()


def _newest() -> Select[ConfigRow]:
    return select(ConfigRow).where(ConfigRow.version == _highest())
