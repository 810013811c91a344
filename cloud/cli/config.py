"""`fleet config`: change how agents work and what services get beside their manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cloud.cli.client import Api
from cloud.cli.exits import Exit, stop
from cloud.cli.options import Json, remote
from cloud.cli.output import OUT, as_json, table
from cloud.cli.pairs import arguments_of, labels_of
from cloud.cli.target import Device, Selector, target_of


@remote
def config(  # noqa: PLR0917 - one parameter for each option
    api: Api,
    selector: Selector = None,
    device: Device = None,
    agent: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE for the agent, such as telemetry_interval=5.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(help="SERVICE.NAME=VALUE in a service's environment; empty: remove.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="JSON file with `agent` and `services` instead.")] = None,
    *,
    json_: Json = False,
) -> None:
    """Change the configuration of devices: what is given is merged into what each has."""
    body: dict[str, Any] = {"target": target_of(api, selector, device)}
    if file:
        try:
            body |= json.loads(file.read_bytes())
        except OSError as error:
            stop(Exit.USAGE, "file.unreadable", f"{file}: {error.strerror}")
        except (ValueError, TypeError) as error:
            stop(Exit.USAGE, "payload.json_syntax", f"{file}: {error}")
    if agent:
        body["agent"] = arguments_of(agent)
    if env:
        body["services"] = _environment(env)
    if not (file or agent or env):
        stop(Exit.USAGE, "field.missing", "say what to change: --agent, --env or --file")
    answer = api.post("/edge/config/update", body)
    if json_:
        as_json(answer)
    else:
        OUT.print(
            table(("DEVICE", "VERSION"), ((name, str(number)) for name, number in answer["devices"].items()))
        )


def _environment(words: list[str]) -> dict[str, Any]:
    services: dict[str, Any] = {}
    for path, value in labels_of(words).items():
        service, _, name = path.partition(".")
        services.setdefault(service, {"env": {}})["env"][name] = value or None
    return services
