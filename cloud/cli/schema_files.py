"""`fleet schemas`: the contract as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cloud.cli.exits import Exit, stop
from cloud.cli.options import Json
from cloud.cli.output import OUT, as_json
from schemas import export as contract

app = typer.Typer(no_args_is_help=True, help="JSON Schemas and the AsyncAPI document of the messages.")


@app.command()
def export(
    to: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("docs/api"),
    *,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if the files differ.")] = False,
    json_: Json = False,
) -> None:
    """Write JSON Schemas and an AsyncAPI 3 document."""
    changed = contract.drift(to) if check else contract.write(to)
    if json_:
        as_json({"directory": str(to), "changed": changed})
    if check and changed:
        stop(Exit.FAILED, "schemas.drift", f"{', '.join(changed)} differ in {to}; run: fleet schemas export")
    if not json_:
        OUT.print(f"{to}: {f'{len(changed)} files written' if changed else 'up to date'}")
