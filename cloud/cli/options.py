"""Options every remote command shares, declared once.

`remote` gives a command its `api: Api` and takes `--url`, `--key` and
`--data-dir` in its place, so they can stand anywhere on the command line.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cloud.cli.client import Api, find_door

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="Directory of a local stack (default: .fleetline).", envvar="FLEETLINE_STACK_DIR"
    ),
]
_URL = Annotated[
    str | None,
    typer.Option("--url", help="The API, such as http://127.0.0.1:8080/api/v1.", envvar="FLEETLINE_URL"),
]
_KEY = Annotated[
    str | None, typer.Option("--key", help="The API key.", envvar="FLEETLINE_API_KEY", show_envvar=True)
]

_CONNECTION = {"url": _URL, "key": _KEY, "data_dir": DataDir}


def remote(command: Callable[..., None]) -> Callable[..., None]:
    """Return *command* with its first parameter `api` replaced by the connection options."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        url, key, data_dir = (options.pop(name) for name in _CONNECTION)
        command(Api(find_door(url, key, data_dir)), *arguments, **options)

    signature = inspect.signature(command, eval_str=True)
    own = list(signature.parameters.values())[1:]
    connection = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _CONNECTION.items()
    ]
    run.__signature__ = signature.replace(parameters=[*own, *connection])  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in [*own, *connection]}
    return run
