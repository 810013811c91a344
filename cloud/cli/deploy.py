"""`fleet deploy`: bring a release to devices and watch it arrive."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cloud.cli.client import Api
from cloud.cli.exits import ERRORS, Exit, stop
from cloud.cli.options import Json, remote
from cloud.cli.output import BAD, GOOD, OUT, UNSURE, as_json, coloured, table
from cloud.cli.target import Device, Selector, target_of
from schemas.reported import Outcome

_STEP = 2.0
_GOOD = {Outcome.COMMITTED, Outcome.NO_CHANGE}


@remote
def deploy(
    api: Api,
    release: Annotated[
        str, typer.Argument(help="JSON file with a release, - for standard input, or a stored release's id.")
    ],
    selector: Selector = None,
    device: Device = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to watch.")] = 600,
    *,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Watch until every device has ended.")
    ] = True,
    json_: Json = False,
) -> None:
    """Bring a release to devices.

    Exit status: 0 every device committed, 1 some did not, 6 some have not ended in time.
    """
    order = {"release": read_release(release), "target": target_of(api, selector, device)}
    made = api.post("/edge/deploy", order)
    if not wait:
        if json_:
            as_json(made)
        else:
            OUT.print(f"deployment {made['deployment_id']} to {len(made['devices'])} devices")
        return
    found = watch(api, made["deployment_id"], timeout=timeout, console=ERRORS)
    if json_:
        as_json(found)
    else:
        OUT.print(progress_table(found))
    _leave(found)


def read_release(word: str) -> Any:
    """Return the id *word* is, or the release in the file it names."""
    try:
        return str(UUID(word))
    except ValueError:
        pass
    try:
        text = typer.get_text_stream("stdin").read() if word == "-" else Path(word).read_text("utf-8")
        return json.loads(text)
    except OSError as error:
        stop(
            Exit.USAGE,
            "release.unknown",
            f"{word} is no release id, and no file that can be read: {error.strerror}",
        )
    except ValueError as error:
        stop(Exit.USAGE, "payload.json_syntax", f"{word}: {error}")


def watch(api: Api, deployment: str, *, timeout: float, console: Console) -> dict[str, Any]:
    """Show a deployment's progress until every device has ended or *timeout* is over; return it."""
    deadline = time.monotonic() + timeout
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("deploying", total=None)
        while True:
            left = max(0.0, deadline - time.monotonic())
            found: dict[str, Any] = api.get(f"/edge/deployments/{deployment}", wait=min(_STEP, left))
            devices = found["devices"]
            ended = [each for each in devices if each["outcome"]]
            progress.update(task, total=len(devices), completed=len(ended), description=_phases(devices))
            if found["ended"] or time.monotonic() >= deadline:
                return found


def progress_table(found: dict[str, Any]) -> Table:
    """Return a row for each device of a deployment."""
    rows = (
        (
            each["device"],
            coloured(each["outcome"] or each["state"], _colour(each["outcome"])),
            escape("; ".join(f"{problem['code']}: {problem['message']}" for problem in each["problems"])),
        )
        for each in found["devices"]
    )
    return table(("DEVICE", "OUTCOME", "PROBLEMS"), rows)


def _phases(devices: list[dict[str, Any]]) -> str:
    """Return how many devices are in which state, such as `staging 2, switching 1`."""
    counts: dict[str, int] = {}
    for each in devices:
        word = each["outcome"] or each["state"]
        counts[word] = counts.get(word, 0) + 1
    return ", ".join(f"{word} {count}" for word, count in sorted(counts.items()))


def _colour(outcome: str | None) -> str:
    if outcome is None:
        return UNSURE
    return GOOD if outcome in _GOOD else BAD


def _leave(found: dict[str, Any]) -> None:
    outcomes = [each["outcome"] for each in found["devices"]]
    if any(outcome and outcome not in _GOOD for outcome in outcomes):
        raise typer.Exit(int(Exit.FAILED))
    if not all(outcomes):
        missing = sum(not outcome for outcome in outcomes)
        stop(
            Exit.TIMED_OUT, "deployment.unfinished", f"devices that have not ended yet: {missing}; they go on"
        )
