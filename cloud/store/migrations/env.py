"""Run by Alembic: carries the revisions out on the connection `upgrade` was given."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from sqlalchemy import JSON

from cloud.store.tables import Base, BigKey


def _render_item(kind: str, item: Any, _: object) -> str | Literal[False]:
    """Name our own column types instead of spelling them out."""
    if kind == "type" and isinstance(item, JSON):
        return "tables.JsonValue"
    return "tables.BigKey" if item is BigKey else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
    render_as_batch=True,
    user_module_prefix="tables.",
    render_item=_render_item,
)
context.run_migrations()
