"""`fleet keys`: who may use the API."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from cloud.cli.client import Api
from cloud.cli.options import Json, remote
from cloud.cli.output import OUT, ago, as_json, table

app = typer.Typer(no_args_is_help=True, help="API keys: list, create, revoke.")


@app.command("list")
@remote
def list_(api: Api, *, json_: Json = False) -> None:
    """Show every key, without its secret."""
    keys = api.get("/edge/keys")["keys"]
    if json_:
        return as_json(keys)
    rows = (
        (
            each["id"],
            escape(each["name"]),
            " ".join(each["scopes"]),
            "revoked" if each.get("revoked_at") else each.get("expires_at") or "never",
            ago(each.get("used_at")),
        )
        for each in keys
    )
    OUT.print(table(("ID", "NAME", "SCOPES", "EXPIRES", "USED"), rows))
    return None


@app.command()
@remote
def create(
    api: Api,
    name: Annotated[str, typer.Argument(help="Whose key it is, or what for.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="Such as devices:read; may be repeated. Default: all.")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires. Default: never.")] = None,
    *,
    json_: Json = False,
) -> None:
    """Make a key. It is shown once."""
    body = {"name": name, "scopes": scope or ["*"]} | ({"ttl": days * 86400} if days else {})
    made = api.post("/edge/keys", body)
    if json_:
        as_json(made)
    else:
        OUT.print(made["key"], soft_wrap=True)


@app.command()
@remote
def revoke(api: Api, key_id: Annotated[str, typer.Argument(help="The key's id, as list shows it.")]) -> None:
    """End a key at once."""
    api.delete(f"/edge/keys/{key_id}")
    OUT.print(f"{key_id} revoked")
