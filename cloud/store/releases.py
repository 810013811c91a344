"""Releases: immutable, known by an id, found by name and version."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from cloud.store.tables import ReleaseRow
from cloud.store.upsert import insert_missing
from schemas.desired import Release
from schemas.errors import ErrorCode, refuse


async def store(session: AsyncSession, release: Release, now: datetime) -> ReleaseRow:
    """Store *release* and return its row; the same content again returns the row there is.

    Raises FleetError `release.changed` where its name and version are taken by other content.
    """
    values = {
        "id": uuid4(),
        "name": release.name,
        "version": release.version,
        "digest": release.digest,
        "document": release.model_dump(mode="json", exclude_defaults=True),
        "created_at": now,
    }
    await insert_missing(session, ReleaseRow, [values])
    same_name = (ReleaseRow.name == release.name, ReleaseRow.version == release.version)
    row = (await session.scalars(select(ReleaseRow).where(*same_name))).one()
    if row.digest != release.digest:
        message = (
            f"release {release.name} {release.version} exists with other content; "
            "releases do not change, so give this one a new version"
        )
        refuse(ErrorCode.RELEASE_CHANGED, message)
    return row


async def require(session: AsyncSession, release: UUID) -> ReleaseRow:
    """Return the release. Raises FleetError `release.unknown`."""
    row = await session.get(ReleaseRow, release)
    if row is None:
        refuse(ErrorCode.RELEASE_UNKNOWN, f"no release with id {release} is stored")
    return row


async def listing(
    session: AsyncSession, *, before: datetime | None = None, limit: int = 100
) -> Sequence[ReleaseRow]:
    """Return releases, the newest first; stored before *before*."""
    statement = select(ReleaseRow).order_by(ReleaseRow.created_at.desc(), ReleaseRow.id).limit(limit)
    if before is not None:
        statement = statement.where(ReleaseRow.created_at < before)
    return (await session.scalars(statement)).all()


async def documents(session: AsyncSession, releases: Collection[UUID]) -> Mapping[UUID, Release]:
    """Return *releases* as their models, by id."""
    rows = await session.scalars(select(ReleaseRow).where(ReleaseRow.id.in_(set(releases))))
    return {row.id: release_of(row) for row in rows}


def release_of(row: ReleaseRow) -> Release:
    """Return the release that *row* holds."""
    return Release.model_validate(row.document)
