"""`fleet events`: what happens in the fleet, as it happens."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.markup import escape

from cloud.cli.client import Api
from cloud.cli.exits import Exit
from cloud.cli.options import Json, remote
from cloud.cli.output import OUT, as_json_line


@remote
def events(
    api: Api,
    device: Annotated[
        str | None, typer.Option(help="Only this device: id, name, or beginning of an id.")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="Only this kind, such as reported; may be repeated.")
    ] = None,
    since: Annotated[
        int | None, typer.Option(min=0, help="Begin after the event with this number; 0: the oldest kept.")
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=0, help="End after so many; 0: never.")] = 0,
    *,
    json_: Json = False,
) -> None:
    """Follow the fleet's events; Ctrl-C ends it."""
    only = api.device(device)["id"] if device else None
    try:
        for number, event in enumerate(api.events(since, device=only, kind=kind or None), start=1):
            if json_:
                as_json_line(event)
            else:
                text = json.dumps(event["data"], ensure_ascii=False)
                who = (event["device"] or "")[:8]
                OUT.print(f"{event['at']}  {event['kind']:<10} {who:<8}  {escape(text)}", soft_wrap=True)
            if number == count:
                return
    except KeyboardInterrupt:
        raise typer.Exit(int(Exit.OK)) from None
