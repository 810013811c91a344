"""`fleet command`: tell a device to do something and wait for its word."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any
from uuid import uuid4

import typer
from rich.markup import escape

from cloud.cli.client import Api
from cloud.cli.exits import Exit, stop
from cloud.cli.options import Json, remote
from cloud.cli.output import BAD, GOOD, OUT, UNSURE, as_json, coloured
from cloud.cli.pairs import arguments_of
from schemas.commands import CommandName, CommandStatus

_LONGEST_WAIT = 60.0
_GRACE = 5.0
_COLOUR = {CommandStatus.SUCCEEDED: GOOD, CommandStatus.FAILED: BAD, CommandStatus.REJECTED: BAD}


@remote
def command(
    api: Api,
    device: Annotated[str, typer.Argument(help="Id, name, or the beginning of an id.")],
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(CommandName)}.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="KEY=VALUE, such as service=web.")] = None,
    timeout: Annotated[float, typer.Option(min=1, max=86400, help="Seconds it may take.")] = 60,
    *,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the final answer.")] = True,
    json_: Json = False,
) -> None:
    """Send a command; print what the device answers.

    Exit status: 0 succeeded, 1 failed or refused by the device, 6 no answer in time.
    """
    found = api.device(device)
    row = order(api, found["id"], name, arguments_of(arguments or []), timeout=timeout)
    if wait:
        row = await_answer(api, row["id"], timeout=timeout + _GRACE)
    if json_:
        as_json(row)
    else:
        show(row)
    if wait:
        leave(row)


def order(
    api: Api,
    device: str,
    name: str,
    arguments: dict[str, Any],
    *,
    timeout: float,
    command_id: str | None = None,
) -> dict[str, Any]:
    """Send a command and return its row as stored; *command_id* makes a repeat harmless."""
    body = {"name": name, "arguments": arguments, "timeout": timeout, "id": command_id or str(uuid4())}
    row: dict[str, Any] = api.post(f"/edge/devices/{device}/commands", body)
    return row


def await_answer(api: Api, command_id: str, *, timeout: float) -> dict[str, Any]:
    """Return the command's row once it is final, or as it is after *timeout* seconds."""
    deadline = time.monotonic() + timeout
    while True:
        left = max(0.0, deadline - time.monotonic())
        row: dict[str, Any] = api.get(f"/edge/commands/{command_id}", wait=min(left, _LONGEST_WAIT))
        if row["final"] or time.monotonic() >= deadline:
            return row


def show(row: dict[str, Any]) -> None:
    """Print a command's row for a person."""
    status = CommandStatus(row["status"])
    OUT.print(
        f"{coloured(status, _COLOUR.get(status, UNSURE))}  {escape(row.get('detail') or '')}", soft_wrap=True
    )
    if row.get("error") and row["error"]["code"] not in (row.get("detail") or ""):
        OUT.print(escape(f"{row['error']['code']}: {row['error']['message']}"), soft_wrap=True)
    if row.get("data"):
        OUT.print(json.dumps(row["data"], indent=2, ensure_ascii=False), markup=False, soft_wrap=True)


def leave(row: dict[str, Any]) -> None:
    """End the command with the status that fits the row."""
    status = CommandStatus(row["status"])
    if status is CommandStatus.SUCCEEDED:
        return
    if status.final:
        raise typer.Exit(int(Exit.FAILED))
    stop(
        Exit.TIMED_OUT,
        "command.unanswered",
        f"no final answer yet ({status}); it may still come: GET /edge/commands/{row['id']}",
    )
