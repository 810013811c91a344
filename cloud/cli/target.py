"""Which devices an order is for: the same options on every verb that takes many."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cloud.cli.client import Api
from cloud.cli.exits import Exit, stop

Selector = Annotated[
    str | None,
    typer.Option("--selector", "-l", help="Labels, such as site=lab,model!=nano. Empty text: every device."),
]
Device = Annotated[
    list[str] | None,
    typer.Option("--device", "-d", help="Id, name, or the beginning of an id; may be repeated."),
]


def target_of(api: Api, selector: str | None, devices: list[str] | None) -> dict[str, Any]:
    """Return the target the options name; exactly one kind must be given."""
    if (selector is None) == (not devices):
        stop(Exit.USAGE, "target.empty", "say which devices: --selector site=lab, or --device NAME")
    if devices:
        return {"devices": [api.device(word)["id"] for word in devices]}
    return {"selector": selector}
