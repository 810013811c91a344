"""The `fleet` command: one line for each verb; the verbs live in their own files."""

from __future__ import annotations

import typer

from cloud import VERSION
from cloud.cli import command as commands
from cloud.cli import (
    config,
    demo,
    deploy,
    devices,
    doctor,
    keys,
    logs,
    metrics,
    schema_files,
    stack,
    tokens,
    watch,
)
from cloud.cli.output import OUT

app = typer.Typer(
    name="fleet",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    help="Run containers on a fleet of devices, and keep them running.\n\n"
    "Exit status: 0 done, 1 done without success, 2 wrong request, 3 no answer, 4 not allowed,"
    " 5 not found, 6 no final answer in time.",
)


def _version(*, asked: bool) -> None:
    if asked:
        OUT.print(f"fleet {VERSION}")
        raise typer.Exit


@app.callback()
def _main(
    *,
    version: bool = typer.Option(
        False,  # noqa: FBT003 - typer's way to declare a flag
        "--version",
        help="Print the version and exit.",
        is_eager=True,
        callback=lambda asked: _version(asked=asked),
    ),
) -> None:
    del version


for panel, verbs in {
    "Local stack": (stack.up, stack.down, demo.demo, doctor.doctor),
    "Fleet": (
        devices.devices,
        devices.status,
        deploy.deploy,
        commands.command,
        logs.logs,
        metrics.metrics,
        watch.events,
        config.config,
    ),
}.items():
    for verb in verbs:
        app.command(rich_help_panel=panel)(verb)
app.add_typer(keys.app, name="keys", rich_help_panel="Access")
app.add_typer(tokens.app, name="tokens", rich_help_panel="Access")
app.add_typer(schema_files.app, name="schemas", rich_help_panel="Contract")


def run() -> None:
    """Run the command; the console script's entry."""
    app()
