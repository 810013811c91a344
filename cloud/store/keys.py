"""API keys: `flk_<id>_<secret>`, of which only the secret's SHA-256 is kept.

The secret has 256 random bits, so a plain hash is enough: there is nothing to
guess (NIST SP 800-63B, 5.1.2.2, look-up secrets).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from cloud.store.tables import ApiKeyRow
from schemas.errors import ErrorCode, refuse

PREFIX = "flk"
USE_NOTED_EVERY = timedelta(minutes=1)
_FORM = re.compile(rf"{PREFIX}_(?P<id>[0-9a-f]{{12}})_(?P<secret>[A-Za-z0-9_-]{{43}})")
_NOBODY = hashlib.sha256(b"").hexdigest()


async def create(
    session: AsyncSession, name: str, scopes: Sequence[str], expires_at: datetime | None, now: datetime
) -> tuple[ApiKeyRow, str]:
    """Store a new key; return its row and the key itself, which nothing can show again."""
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    row = ApiKeyRow(
        id=key_id,
        hash=_hash(secret),
        name=name,
        scopes=list(scopes),
        created_at=now,
        expires_at=expires_at,
        revoked_at=None,
        used_at=None,
    )
    session.add(row)
    await session.flush()
    return row, f"{PREFIX}_{key_id}_{secret}"


async def verify(session: AsyncSession, presented: str, now: datetime) -> ApiKeyRow:
    """Return the row of the key *presented*, and note its use at most once a minute.

    Raises FleetError `auth.invalid` (malformed, unknown or revoked: not told apart) or `auth.expired`.
    """
    form = _FORM.fullmatch(presented)
    row = await session.get(ApiKeyRow, form["id"]) if form else None
    right = hmac.compare_digest(_hash(form["secret"] if form else ""), row.hash if row else _NOBODY)
    if form is None or row is None or not right or row.revoked_at is not None:
        refuse(ErrorCode.AUTH_INVALID, "the API key is not known or was revoked; make one with `fleet keys`")
    if row.expires_at is not None and row.expires_at <= now:
        refuse(ErrorCode.AUTH_EXPIRED, f"the API key {row.id} expired at {row.expires_at:%Y-%m-%d %H:%M} UTC")
    if row.used_at is None or now - row.used_at >= USE_NOTED_EVERY:
        await _note_use(session, row.id, now)
    return row


async def revoke(session: AsyncSession, key_id: str, now: datetime) -> ApiKeyRow:
    """End a key for good and return it; a revoked key may be revoked again.

    Raises FleetError `key.unknown`.
    """
    row = await session.get(ApiKeyRow, key_id)
    if row is None:
        refuse(ErrorCode.KEY_UNKNOWN, f"no API key has the id {key_id[:80]!r}; list them with GET /edge/keys")
    if row.revoked_at is None:
        row.revoked_at = now
    return row


async def listing(session: AsyncSession) -> list[ApiKeyRow]:
    """Return every key, revoked ones too, oldest first."""
    return list(await session.scalars(select(ApiKeyRow).order_by(ApiKeyRow.created_at, ApiKeyRow.id)))


async def _note_use(session: AsyncSession, key_id: str, now: datetime) -> None:
    old = or_(ApiKeyRow.used_at.is_(None), ApiKeyRow.used_at <= now - USE_NOTED_EVERY)
    statement = update(ApiKeyRow).where(ApiKeyRow.id == key_id, old).values(used_at=now)
    await session.execute(statement, execution_options={"synchronize_session": False})


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
