"""`fleet tokens`: let new devices in."""

from __future__ import annotations

from typing import Annotated

import typer

from cloud.cli.client import Api
from cloud.cli.options import Json, remote
from cloud.cli.output import OUT, as_json
from cloud.cli.pairs import labels_of

app = typer.Typer(no_args_is_help=True, help="Enrolment tokens: let new devices in.")


@app.command()
@remote
def create(
    api: Api,
    label: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE given to the device; may be repeated.")
    ] = None,
    uses: Annotated[int, typer.Option(min=1, max=10_000, help="Devices that may use it.")] = 1,
    minutes: Annotated[int, typer.Option(min=1, help="Minutes until it expires.")] = 60,
    *,
    json_: Json = False,
) -> None:
    """Make a token, and show the line to type on the device. It is shown once."""
    made = api.post(
        "/edge/enrolment/tokens", {"labels": labels_of(label or []), "uses": uses, "ttl": minutes * 60}
    )
    if json_:
        as_json(made)
    else:
        OUT.print(made["line"], soft_wrap=True, markup=False)
