"""`fleet logs`: what a service printed."""

from __future__ import annotations

import sys
from typing import Annotated, Any
from uuid import uuid4

import typer

from cloud.cli.client import Api
from cloud.cli.command import await_answer, leave, order, show
from cloud.cli.exits import Exit
from cloud.cli.options import Json, remote
from cloud.cli.output import as_json, as_json_line
from schemas.commands import MAX_LOG_LINES, CommandStatus

_PATIENCE = 60.0


@remote
def logs(
    api: Api,
    device: Annotated[str, typer.Argument(help="Id, name, or the beginning of an id.")],
    service: Annotated[str, typer.Argument(help="The service's name.")],
    tail: Annotated[int, typer.Option("--tail", "-n", min=0, max=MAX_LOG_LINES, help="Last lines.")] = 100,
    seconds: Annotated[float, typer.Option(min=1, max=86400, help="How long to follow.")] = 3600,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new lines; Ctrl-C ends it.")
    ] = False,
    json_: Json = False,
) -> None:
    """Print a service's log."""
    found = api.device(device)
    if follow:
        _follow(api, found["id"], service, tail=tail, seconds=seconds, json_=json_)
        return
    row = order(api, found["id"], "logs", {"service": service, "tail": tail}, timeout=_PATIENCE)
    row = await_answer(api, row["id"], timeout=_PATIENCE)
    if row["status"] != CommandStatus.SUCCEEDED:
        show(row)
        leave(row)
    lines = (row.get("data") or {}).get("lines", [])
    if json_:
        as_json(lines)
    else:
        _write(lines)


def _follow(api: Api, device: str, service: str, *, tail: int, seconds: float, json_: bool) -> None:
    command_id = str(uuid4())
    arguments = {"service": service, "tail": tail, "follow": True}
    print_lines = _print_json if json_ else _write
    stream = api.events(
        device=device,
        command=command_id,
        on_open=lambda: order(api, device, "logs", arguments, timeout=seconds, command_id=command_id),
    )
    try:
        for event in stream:
            if event["kind"] == "chunk":
                print_lines(event["data"]["lines"])
            elif event["kind"] == "result" and CommandStatus(event["data"]["status"]).final:
                _end(event["data"])
                return
    except KeyboardInterrupt:
        order(api, device, "cancel", {"id": command_id}, timeout=_PATIENCE)
        raise typer.Exit(int(Exit.OK)) from None


def _end(body: dict[str, Any]) -> None:
    if body["status"] != CommandStatus.SUCCEEDED:
        show(body)
        raise typer.Exit(int(Exit.FAILED))


def _print_json(lines: list[str]) -> None:
    for line in lines:
        as_json_line(line)


def _write(lines: list[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
