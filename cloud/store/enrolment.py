"""Enrolment tokens, and the devices that came in with them."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from cloud.store.tables import DeviceRow, EnrolmentTokenRow
from cloud.store.upsert import insert_one_missing
from schemas.errors import ErrorCode, refuse

PREFIX = "flt"


async def create_token(
    session: AsyncSession, *, labels: Mapping[str, str], ttl: timedelta, uses: int, now: datetime
) -> tuple[EnrolmentTokenRow, str]:
    """Store a right for *uses* devices to enrol; return its row and the token, which is shown once."""
    token = f"{PREFIX}_{secrets.token_urlsafe(32)}"
    row = EnrolmentTokenRow(
        id=uuid4(),
        hash=_hash(token),
        labels=dict(labels),
        created_at=now,
        expires_at=now + ttl,
        uses_left=uses,
        used_by=[],
    )
    session.add(row)
    await session.flush()
    return row, token


async def claim(session: AsyncSession, token: str, device: UUID, now: datetime) -> EnrolmentTokenRow:
    """Take one use of *token* for *device*; a repeat by the same device takes none.

    Raises FleetError `claim.unknown`, `claim.used` or `claim.expired`.
    """
    row = await session.scalar(select(EnrolmentTokenRow).where(EnrolmentTokenRow.hash == _hash(token)))
    if row is None:
        refuse(
            ErrorCode.CLAIM_UNKNOWN, "the enrolment token is not known; make one with `fleet devices token`"
        )
    if row.expires_at <= now:
        refuse(ErrorCode.CLAIM_EXPIRED, f"the enrolment token expired at {row.expires_at:%Y-%m-%d %H:%M} UTC")
    if str(device) in row.used_by:
        return row
    taken = await session.scalar(
        update(EnrolmentTokenRow)
        .where(
            EnrolmentTokenRow.id == row.id,
            EnrolmentTokenRow.uses_left == row.uses_left,
            EnrolmentTokenRow.uses_left > 0,
        )
        .values(uses_left=row.uses_left - 1, used_by=[*row.used_by, str(device)])
        .returning(EnrolmentTokenRow.id)
        .execution_options(synchronize_session=False)
    )
    if taken is None:
        await session.refresh(row)
        if row.uses_left > 0 or str(device) in row.used_by:  # a use was taken since we looked
            return await claim(session, token, device, now)
        refuse(ErrorCode.CLAIM_USED, "the enrolment token is used up; ask the operator for a new one")
    await session.refresh(row)
    return row


async def admit(
    session: AsyncSession,
    device: UUID,
    *,
    key: str,
    name: str,
    labels: Mapping[str, str],
    certificate_expires_at: datetime,
    now: datetime,
) -> bool:
    """Store *device* with the thumbprint of its *key*; return whether it is new.

    A device known already keeps its name and labels and gets a new certificate
    for the same key. Raises FleetError `claim.device_taken` for another key:
    a token lets a new device in, it does not make its bearer an old one.
    """
    values = {
        "id": device,
        "name": name,
        "labels": dict(labels),
        "key": key,
        "enrolled_at": now,
        "certificate_expires_at": certificate_expires_at,
        "online": False,
        "session": 0,
        "revision": 0,
        "generation": 0,
        "config_version": 0,
    }
    if await insert_one_missing(session, DeviceRow, values):
        return True
    row = await session.get_one(DeviceRow, device, populate_existing=True)
    if row.key != key:
        refuse(
            ErrorCode.CLAIM_DEVICE_TAKEN,
            f"device {device} is enrolled with another key; delete the agent's identity so it takes a new id",
        )
    row.certificate_expires_at = certificate_expires_at
    return False


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
