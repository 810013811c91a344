"""The tables. Times are UTC; documents are JSON exactly as their models print them.

Every change of a row that others may change too is a guarded `UPDATE ... WHERE`;
see the module of each noun.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    JSON,
    DateTime,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    Uuid,
)
from sqlalchemy import BigInteger as SqlBigInteger
from sqlalchemy import Integer as SqlInteger
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

JsonValue = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
BigKey = SqlBigInteger().with_variant(SqlInteger(), "sqlite")
"""An autoincrementing 64-bit key on both databases."""


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC time; SQLite keeps none, so the zone is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store UTC; refuse a time without a zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            msg = f"a time without a zone cannot be stored: {value!r}"
            raise ValueError(msg)
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an aware time."""
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Names constraints, so that migrations can name them too."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcTime(),
        UUID: Uuid(),
        dict[str, Any]: JsonValue,
        list[Any]: JsonValue,
    }


class DeviceRow(Base):
    """An enrolled device, and the newest of what it said."""

    __tablename__ = "devices"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), default="")
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Given by people; `model`, `arch` and such are added from the reported facts when selecting."""
    key: Mapped[str] = mapped_column(String(64), default="")
    """SHA-256 of the public key it enrolled with; another key never gets a certificate for this id."""
    enrolled_at: Mapped[datetime]
    certificate_expires_at: Mapped[datetime]
    presence: Mapped[dict[str, Any] | None]
    """schemas.presence.Presence, the newest by session."""
    online: Mapped[bool] = mapped_column(default=False)
    session: Mapped[int] = mapped_column(SqlBigInteger, default=0)
    seen_at: Mapped[datetime | None]
    """When anything last arrived from it, by the cloud's clock."""
    reported: Mapped[dict[str, Any] | None]
    """schemas.reported.Reported, the newest by revision."""
    revision: Mapped[int] = mapped_column(SqlBigInteger, default=0)
    generation: Mapped[int] = mapped_column(SqlBigInteger, default=0)
    """Of the newest desired state ordered; grows by a guarded update."""
    config_version: Mapped[int] = mapped_column(SqlBigInteger, default=0)
    """Of the newest configuration ordered."""


class EnrolmentTokenRow(Base):
    """A one-time right to enrol. Only the token's SHA-256 is kept."""

    __tablename__ = "enrolment_tokens"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    uses_left: Mapped[int]
    used_by: Mapped[list[Any]] = mapped_column(default=list)
    """Device ids; the same device may repeat its claim (a lost answer) without a further use."""


class ReleaseRow(Base):
    """An immutable release; one name and version never has two contents."""

    __tablename__ = "releases"
    __table_args__ = (Index("uq_releases_name_version", "name", "version", unique=True),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(63))
    version: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(80))
    document: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class DeploymentRow(Base):
    """An order to bring a release to devices."""

    __tablename__ = "deployments"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    release_id: Mapped[UUID] = mapped_column(ForeignKey("releases.id"))
    target: Mapped[dict[str, Any]]
    strategy: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(index=True)
    created_by: Mapped[str] = mapped_column(String(200))


class DesiredRow(Base):
    """What a device was ordered to run, generation by generation; the highest counts."""

    __tablename__ = "desired"

    device: Mapped[UUID] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    generation: Mapped[int] = mapped_column(SqlBigInteger, primary_key=True)
    release_id: Mapped[UUID] = mapped_column(ForeignKey("releases.id"))
    deployment: Mapped[UUID | None] = mapped_column(ForeignKey("deployments.id"), index=True)
    issued_at: Mapped[datetime]
    published_at: Mapped[datetime | None] = mapped_column(index=True)
    """When the broker took it; None: still to be published (the sweep does)."""
    outcome: Mapped[str | None] = mapped_column(String(40))
    """schemas.reported.Outcome, once the device said it."""
    problems: Mapped[list[Any]] = mapped_column(default=list)
    ended_at: Mapped[datetime | None]
    """When the outcome came, or when a newer generation took its place (no outcome then)."""


class ConfigRow(Base):
    """A device's configuration, version by version; the highest counts."""

    __tablename__ = "configs"

    device: Mapped[UUID] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    version: Mapped[int] = mapped_column(SqlBigInteger, primary_key=True)
    document: Mapped[dict[str, Any]]
    issued_at: Mapped[datetime]
    created_by: Mapped[str] = mapped_column(String(200))
    published_at: Mapped[datetime | None] = mapped_column(index=True)
    applied_at: Mapped[datetime | None]
    """When the device first reported this version or a newer one."""


class CommandRow(Base):
    """A command's intent and what became of it."""

    __tablename__ = "commands"
    __table_args__ = (Index("ix_commands_open", "status", "next_send_at"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    device: Mapped[UUID] = mapped_column(ForeignKey("devices.id"), index=True)
    name: Mapped[str] = mapped_column(String(63))
    arguments: Mapped[dict[str, Any]]
    issued_at: Mapped[datetime] = mapped_column(index=True)
    issued_by: Mapped[str] = mapped_column(String(200))
    deadline: Mapped[datetime]
    status: Mapped[str] = mapped_column(String(20))
    detail: Mapped[str] = mapped_column(Text, default="")
    data: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    updated_at: Mapped[datetime]
    sends: Mapped[int] = mapped_column(default=0)
    next_send_at: Mapped[datetime | None]
    """When the sweep sends the same id again; None: no more."""


class EventRow(Base):
    """The fleet's diary, kept for a while: what REST's event stream reads. `id` grows."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(index=True)
    kind: Mapped[str] = mapped_column(String(63))
    device: Mapped[UUID | None] = mapped_column(index=True)
    data: Mapped[dict[str, Any]]


class DeadLetterRow(Base):
    """A message that could not be read, and why."""

    __tablename__ = "dead_letters"

    id: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(index=True)
    topic: Mapped[str] = mapped_column(Text)
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    code: Mapped[str] = mapped_column(String(80))
    message: Mapped[str] = mapped_column(Text)


class StreamRow(Base):
    """How far a device's telemetry stream is in the metrics database, for each life of its spool."""

    __tablename__ = "streams"

    device: Mapped[UUID] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    stream: Mapped[str] = mapped_column(String(63), primary_key=True)
    boot: Mapped[UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(SqlBigInteger)
    """Every batch up to this one is in the database or counted as lost."""
    lost: Mapped[int] = mapped_column(SqlBigInteger, default=0)
    """Batches the device dropped before they arrived: a spool that was full for too long."""
    updated_at: Mapped[datetime]


class ApiKeyRow(Base):
    """An API key; only the secret's SHA-256 is kept (the secret itself has 256 random bits)."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    hash: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(100))
    scopes: Mapped[list[Any]]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    used_at: Mapped[datetime | None]
