"""Deployments, and the desired state they give to each device, generation by generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Select, func, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from cloud.store import releases
from cloud.store.tables import DeploymentRow, DesiredRow, DeviceRow, ReleaseRow
from schemas.base import jsonable
from schemas.desired import DeploymentConfig, Desired, Release
from schemas.errors import ErrorCode, Problem, refuse
from schemas.reported import Outcome, Phase, Reported


class DeviceState(StrEnum):
    """How far one device is with one generation, by its own word."""

    QUEUED = "queued"
    """Stored; the broker has not taken it yet."""
    NOTIFIED = "notified"
    """The broker has it; the device has not said that it accepted it."""
    ACCEPTED = "accepted"
    STAGING = "staging"
    SWITCHING = "switching"
    SOAKING = "soaking"
    COMMITTED = "committed"
    NO_CHANGE = "no_change"
    FAILED = "failed_no_state_change"
    ROLLED_BACK = "rolled_back"
    NOT_ROLLED_BACK = "not_rolled_back"
    INCONSISTENT = "unable_to_roll_back"
    SUPERSEDED = "superseded"
    """A newer generation took its place before it ended, or the device knows a higher one."""


@dataclass(frozen=True, slots=True)
class DeviceProgress:
    """One device of a deployment. `well`: whether every service of it is as it should be; None: not known."""

    device: UUID
    generation: int
    state: DeviceState
    outcome: Outcome | None
    phase: Phase | None
    well: bool | None
    problems: tuple[Problem, ...]
    issued_at: datetime
    published_at: datetime | None
    ended_at: datetime | None


async def store_release(session: AsyncSession, release: Release, now: datetime) -> ReleaseRow:
    """Store *release*; see `cloud.store.releases.store`."""
    return await releases.store(session, release, now)


async def create(
    session: AsyncSession, config: DeploymentConfig, devices: Sequence[UUID], by: str, now: datetime
) -> tuple[DeploymentRow, dict[UUID, int]]:
    """Order the release for *devices*; return the deployment and the generation each device got.

    Raises FleetError `release.unknown` or `release.changed`.
    """
    if isinstance(config.release, Release):
        release = await releases.store(session, config.release, now)
    else:
        release = await releases.require(session, config.release)
    row = DeploymentRow(
        id=uuid4(),
        release_id=release.id,
        target=jsonable(config.target),
        strategy=jsonable(config.strategy),
        created_at=now,
        created_by=by,
    )
    session.add(row)
    await session.flush()
    generations = await _next_generations(session, devices)
    await _supersede(session, devices, now)
    session.add_all(
        DesiredRow(
            device=device, generation=generation, release_id=release.id, deployment=row.id, issued_at=now
        )
        for device, generation in generations.items()
    )
    await session.flush()
    return row, generations


async def require(session: AsyncSession, deployment: UUID) -> DeploymentRow:
    """Return the deployment. Raises FleetError `deployment.unknown`."""
    row = await session.get(DeploymentRow, deployment)
    if row is None:
        refuse(ErrorCode.DEPLOYMENT_UNKNOWN, f"no deployment with id {deployment} is stored")
    return row


async def listing(
    session: AsyncSession, *, before: datetime | None = None, limit: int = 100
) -> Sequence[DeploymentRow]:
    """Return deployments, the newest first."""
    statement = select(DeploymentRow).order_by(DeploymentRow.created_at.desc(), DeploymentRow.id).limit(limit)
    if before is not None:
        statement = statement.where(DeploymentRow.created_at < before)
    return (await session.scalars(statement)).all()


async def progress(session: AsyncSession, deployment: UUID) -> list[DeviceProgress]:
    """Return how far each device is, in the order of their ids. Raises FleetError `deployment.unknown`."""
    await require(session, deployment)
    statement = (
        select(DesiredRow, DeviceRow.reported)
        .join(DeviceRow, DeviceRow.id == DesiredRow.device)
        .where(DesiredRow.deployment == deployment)
        .order_by(DesiredRow.device)
    )
    return [_progress(desired, reported) for desired, reported in await session.execute(statement)]


async def newest(session: AsyncSession, device: UUID) -> DesiredRow | None:
    """Return what *device* was last ordered to run, or None."""
    return (await session.scalars(_newest().where(DesiredRow.device == device))).one_or_none()


async def desired_of(session: AsyncSession, rows: Sequence[DesiredRow]) -> list[Desired]:
    """Return *rows* as they are published."""
    known = await releases.documents(session, {row.release_id for row in rows})
    return [
        Desired(
            generation=row.generation,
            release_id=row.release_id,
            release=known[row.release_id],
            deployment=row.deployment,
            issued_at=row.issued_at,
        )
        for row in rows
    ]


async def unpublished(session: AsyncSession, limit: int) -> Sequence[DesiredRow]:
    """Return orders that count (the newest of their device) and that the broker does not have."""
    statement = _newest().where(DesiredRow.published_at.is_(None)).order_by(DesiredRow.issued_at).limit(limit)
    return (await session.scalars(statement)).all()


async def published(session: AsyncSession, rows: Sequence[DesiredRow], now: datetime) -> None:
    """Note that the broker took *rows*.

    Rows that others are changing are left out, as to wait for several could lock both up; they are
    published once more.
    """
    key = tuple_(DesiredRow.device, DesiredRow.generation)
    statement = select(DesiredRow.device, DesiredRow.generation).where(
        key.in_([(row.device, row.generation) for row in rows])
    )
    free = (await session.execute(statement.with_for_update(skip_locked=True))).all()
    await session.execute(
        update(DesiredRow)
        .where(key.in_([tuple(each) for each in free]))
        .values(published_at=now)
        .execution_options(synchronize_session=False)
    )


async def publish_again(session: AsyncSession) -> None:
    """Take every order that counts for unpublished: the broker lost what it kept."""
    await session.execute(
        update(DesiredRow)
        .where(DesiredRow.published_at.is_not(None), DesiredRow.generation == _highest())
        .values(published_at=None)
        .execution_options(synchronize_session=False)
    )


async def publish_unheard(session: AsyncSession, now: datetime, *, patience: timedelta) -> None:
    """Take an order for unpublished if its device is online but has not accepted it within *patience*."""
    accepted = DeviceRow.reported["generation"].as_numeric(20, 0)
    behind = select(DeviceRow.id).where(
        DeviceRow.online,
        DeviceRow.id == DesiredRow.device,
        or_(DeviceRow.reported.is_(None), func.coalesce(accepted, 0) < DesiredRow.generation),
    )
    await session.execute(
        update(DesiredRow)
        .where(
            DesiredRow.published_at < now - patience,
            DesiredRow.outcome.is_(None),
            DesiredRow.generation == _highest(),
            behind.exists(),
        )
        .values(published_at=None)
        .execution_options(synchronize_session=False)
    )


async def record_outcome(
    session: AsyncSession, device: UUID, reported: Reported, now: datetime
) -> Sequence[DesiredRow]:
    """Store how the reported generation ended, and end older ones still open; return what ended.

    A device is past an order that never ended if the cloud was restored from a backup and gave out a
    number again: the device heeds only higher ones.
    """
    return [
        *await _with_outcome(session, device, reported, now),
        *await _overtaken(session, device, reported, now),
    ]


async def _with_outcome(
    session: AsyncSession, device: UUID, reported: Reported, now: datetime
) -> Sequence[DesiredRow]:
    if reported.outcome is None:
        return []
    statement = (
        update(DesiredRow)
        .where(
            DesiredRow.device == device,
            DesiredRow.generation == reported.generation,
            DesiredRow.outcome.is_distinct_from(reported.outcome.value),
        )
        .values(
            outcome=reported.outcome.value,
            problems=[jsonable(problem) for problem in reported.problems],
            ended_at=now,
        )
        .returning(DesiredRow)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    return (await session.scalars(statement)).all()


async def _overtaken(
    session: AsyncSession, device: UUID, reported: Reported, now: datetime
) -> Sequence[DesiredRow]:
    statement = (
        update(DesiredRow)
        .where(
            DesiredRow.device == device,
            DesiredRow.generation < reported.generation,
            DesiredRow.ended_at.is_(None),
        )
        .values(ended_at=now)
        .returning(DesiredRow)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    return (await session.scalars(statement)).all()


def state_of(desired: DesiredRow, reported: Reported | None) -> DeviceState:
    """Return how far the device is with *desired*; never more than it said itself."""
    if desired.outcome is not None:
        return DeviceState(desired.outcome)
    if desired.ended_at is not None or (reported is not None and reported.generation > desired.generation):
        return DeviceState.SUPERSEDED
    if reported is None or reported.generation < desired.generation:
        return DeviceState.QUEUED if desired.published_at is None else DeviceState.NOTIFIED
    match reported.phase:
        case Phase.STAGING | Phase.SWITCHING | Phase.SOAKING:
            return DeviceState(reported.phase.value)
        case Phase.IDLE | Phase.DONE:
            return DeviceState.ACCEPTED


def _progress(desired: DesiredRow, document: dict[str, Any] | None) -> DeviceProgress:
    reported = None if document is None else Reported.model_validate(document)
    current = reported is not None and reported.generation == desired.generation
    return DeviceProgress(
        device=desired.device,
        generation=desired.generation,
        state=state_of(desired, reported),
        outcome=None if desired.outcome is None else Outcome(desired.outcome),
        phase=reported.phase if reported is not None and current else None,
        well=all(each.well for each in reported.services) if reported is not None and current else None,
        problems=tuple(Problem.model_validate(each) for each in desired.problems)
        or (tuple(reported.problems) if reported is not None and current else ()),
        issued_at=desired.issued_at,
        published_at=desired.published_at,
        ended_at=desired.ended_at,
    )


async def _next_generations(session: AsyncSession, devices: Sequence[UUID]) -> dict[UUID, int]:
    """Raise each device's number by one; rows are locked in one order, so that two orders never lock up."""
    await session.execute(
        select(DeviceRow.id).where(DeviceRow.id.in_(devices)).order_by(DeviceRow.id).with_for_update()
    )
    statement = (
        update(DeviceRow)
        .where(DeviceRow.id.in_(devices))
        .values(generation=DeviceRow.generation + 1)
        .returning(DeviceRow.id, DeviceRow.generation)
        .execution_options(synchronize_session=False)
    )
    numbers = {row.id: row.generation for row in await session.execute(statement)}
    return {device: numbers[device] for device in devices if device in numbers}


async def _supersede(session: AsyncSession, devices: Sequence[UUID], now: datetime) -> None:
    await session.execute(
        update(DesiredRow)
        .where(DesiredRow.device.in_(devices), DesiredRow.ended_at.is_(None))
        .values(ended_at=now)
        .execution_options(synchronize_session=False)
    )


def _highest() -> Any:
    """Return the highest generation ordered for the row's device, as a part of a statement."""
    other = DesiredRow.__table__.alias("other")
    return select(func.max(other.c.generation)).where(other.c.device == DesiredRow.device).scalar_subquery()


def _newest() -> Select[DesiredRow]:
    return select(DesiredRow).where(DesiredRow.generation == _highest())
