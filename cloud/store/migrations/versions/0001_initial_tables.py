"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from cloud.store import tables

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("scopes", tables.JsonValue, nullable=False),
        sa.Column("created_at", tables.UtcTime(timezone=True), nullable=False),
        sa.Column("expires_at", tables.UtcTime(timezone=True), nullable=True),
        sa.Column("revoked_at", tables.UtcTime(timezone=True), nullable=True),
        sa.Column("used_at", tables.UtcTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", tables.BigKey, autoincrement=True, nullable=False),
        sa.Column("at", tables.UtcTime(timezone=True), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("code", sa.String(length=80), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
    )
    with op.batch_alter_table("dead_letters", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_dead_letters_at"), ["at"], unique=False)

    op.create_table(
        "devices",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("labels", tables.JsonValue, nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("enrolled_at", tables.UtcTime(timezone=True), nullable=False),
        sa.Column("certificate_expires_at", tables.UtcTime(timezone=True), nullable=False),
        sa.Column("presence", tables.JsonValue, nullable=True),
        sa.Column("online", sa.Boolean(), nullable=False),
        sa.Column("session", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", tables.UtcTime(timezone=True), nullable=True),
        sa.Column("reported", tables.JsonValue, nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("config_version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_devices")),
    )
    op.create_table(
        "enrolment_tokens",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("labels", tables.JsonValue, nullable=False),
        sa.Column("created_at", tables.UtcTime(timezone=True), nullable=False),
        sa.Column("expires_at", tables.UtcTime(timezone=True), nullable=False),
        sa.Column("uses_left", sa.Integer(), nullable=False),
        sa.Column("used_by", tables.JsonValue, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrolment_tokens")),
        sa.UniqueConstraint("hash", name=op.f("uq_enrolment_tokens_hash")),
    )
    op.create_table(
        "events",
        sa.Column("id", tables.BigKey, autoincrement=True, nullable=False),
        sa.Column("at", tables.UtcTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(length=63), nullable=False),
        sa.Column("device", sa.Uuid(), nullable=True),
        sa.Column("data", tables.JsonValue, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_events_at"), ["at"], unique=False)
        batch_op.create_index(batch_op.f("ix_events_device"), ["device"], unique=False)

    op.create_table(
        "releases",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("document", tables.JsonValue, nullable=False),
        sa.Column("created_at", tables.UtcTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_releases")),
    )
    with op.batch_alter_table("releases", schema=None) as batch_op:
        batch_op.create_index("uq_releases_name_version", ["name", "version"], unique=True)

    op.create_table(
        "commands",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("device", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("arguments", tables.JsonValue, nullable=False),
        sa.Column("issued_at", tables.UtcTime(timezone=True), nullable=False),
        sa.Column("issued_by", sa.String(length=200), nullable=False),
        sa.Column("deadline", tables.UtcTime(timezone=True), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("data", tables.JsonValue, nullable=True),
        sa.Column("error", tables.JsonValue, nullable=True),
        sa.Column("updated_at", tables.UtcTime(timezone=True), nullable=False),
        sa.Column("sends", sa.Integer(), nullable=False),
        sa.Column("next_send_at", tables.UtcTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name=op.f("fk_commands_device_devices")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commands")),
    )
    with op.batch_alter_table("commands", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_commands_device"), ["device"], unique=False)
        batch_op.create_index(batch_op.f("ix_commands_issued_at"), ["issued_at"], unique=False)
        batch_op.create_index("ix_commands_open", ["status", "next_send_at"], unique=False)

    op.create_table(
        "configs",
        sa.Column("device", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("document", tables.JsonValue, nullable=False),
        sa.Column("issued_at", tables.UtcTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=200), nullable=False),
        sa.Column("published_at", tables.UtcTime(timezone=True), nullable=True),
        sa.Column("applied_at", tables.UtcTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name=op.f("fk_configs_device_devices")),
        sa.PrimaryKeyConstraint("device", "version", name=op.f("pk_configs")),
    )
    with op.batch_alter_table("configs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_configs_published_at"), ["published_at"], unique=False)

    op.create_table(
        "deployments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("release_id", sa.Uuid(), nullable=False),
        sa.Column("target", tables.JsonValue, nullable=False),
        sa.Column("strategy", tables.JsonValue, nullable=False),
        sa.Column("created_at", tables.UtcTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=200), nullable=False),
        sa.ForeignKeyConstraint(
            ["release_id"], ["releases.id"], name=op.f("fk_deployments_release_id_releases")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployments")),
    )
    with op.batch_alter_table("deployments", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_deployments_created_at"), ["created_at"], unique=False)

    op.create_table(
        "streams",
        sa.Column("device", sa.Uuid(), nullable=False),
        sa.Column("stream", sa.String(length=63), nullable=False),
        sa.Column("boot", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("lost", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", tables.UtcTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name=op.f("fk_streams_device_devices")),
        sa.PrimaryKeyConstraint("device", "stream", "boot", name=op.f("pk_streams")),
    )
    op.create_table(
        "desired",
        sa.Column("device", sa.Uuid(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("release_id", sa.Uuid(), nullable=False),
        sa.Column("deployment", sa.Uuid(), nullable=True),
        sa.Column("issued_at", tables.UtcTime(timezone=True), nullable=False),
        sa.Column("published_at", tables.UtcTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.String(length=40), nullable=True),
        sa.Column("problems", tables.JsonValue, nullable=False),
        sa.Column("ended_at", tables.UtcTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["deployment"], ["deployments.id"], name=op.f("fk_desired_deployment_deployments")
        ),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name=op.f("fk_desired_device_devices")),
        sa.ForeignKeyConstraint(["release_id"], ["releases.id"], name=op.f("fk_desired_release_id_releases")),
        sa.PrimaryKeyConstraint("device", "generation", name=op.f("pk_desired")),
    )
    with op.batch_alter_table("desired", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_desired_deployment"), ["deployment"], unique=False)
        batch_op.create_index(batch_op.f("ix_desired_published_at"), ["published_at"], unique=False)
