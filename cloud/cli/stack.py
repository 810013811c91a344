"""`fleet up` and `fleet down`: a whole local stack, started and ended."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from cloud.cli.client import DEFAULT_DATA_DIR
from cloud.cli.exits import ERRORS, Exit, stop
from cloud.cli.options import DataDir, Json
from cloud.cli.output import OUT, as_json
from cloud.stack import detach
from cloud.stack.layout import Endpoints, EngineKind, Layout, MetricsKind, StackSettings
from cloud.stack.progress import Report, StackFailed, Step, StepState

_Port = Annotated[int, typer.Option(min=0, max=65535)]


def up(  # noqa: PLR0917 - one parameter for each option
    data_dir: DataDir = None,
    devices: Annotated[int, typer.Option(min=0, max=500, help="Agents to run on this machine.")] = 3,
    engine: Annotated[
        EngineKind, typer.Option(help="What the agents run containers on.")
    ] = EngineKind.DOCKER,
    metrics: Annotated[MetricsKind, typer.Option(help="Where samples are kept.")] = MetricsKind.SQL,
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="REST; 0: any free port.")] = 8080,
    mqtt_port: Annotated[
        int, typer.Option(min=0, max=65535, help="MQTT for people and services; 0: any free port.")
    ] = 8884,
    device_mqtt_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="MQTT for devices; default 8883, or any free port if --mqtt-port is given."
        ),
    ] = None,
    topic_root: Annotated[str, typer.Option(help="Where every topic begins.")] = "fleet/v1",
    database_url: Annotated[
        str | None, typer.Option(help="postgresql+asyncpg://...; default: SQLite in the data directory.")
    ] = None,
    *,
    detach_: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when all is ready; fleet down ends it.")
    ] = False,
    json_: Json = False,
) -> None:
    """Start broker, cloud and devices on this machine.

    Ready means: every part answers and every device is online. How to reach it
    then stands in DATA_DIR/endpoints.json.
    """
    directory = data_dir or DEFAULT_DATA_DIR
    if device_mqtt_port is None:
        device_mqtt_port = 8883 if mqtt_port == 8884 else 0  # noqa: PLR2004 - the two standard ports
    try:
        settings = StackSettings(
            devices=devices,
            engine=engine,
            metrics=metrics,
            http_port=http_port,
            mqtt_port=mqtt_port,
            device_mqtt_port=device_mqtt_port,
            topic_root=topic_root,
            database_url=database_url,
        )
    except ValidationError as error:
        stop(Exit.USAGE, "value.out_of_range", str(error))
    bring_up(directory, settings)
    endpoints = Layout(directory).read_endpoints()
    if endpoints is None:
        stop(Exit.FAILED, "stack.gone", f"the stack ended at once; see {Layout(directory).log('stack')}")
    if json_:
        as_json(endpoints.model_dump(mode="json"))
    else:
        _describe(directory, endpoints)
    if not detach_:
        _stay(directory)


def down(
    data_dir: DataDir = None,
    *,
    purge: Annotated[
        bool, typer.Option("--purge", help="Also delete the stack's data and the devices' volumes.")
    ] = False,
    json_: Json = False,
) -> None:
    """End the local stack: its processes, and its devices' containers and networks.

    Data stays for the next start unless --purge is given.
    """
    directory = data_dir or DEFAULT_DATA_DIR
    layout = Layout(directory)
    if layout.foreign or not directory.exists():
        stop(Exit.NOT_FOUND, "stack.unknown", f"no stack was ever started in {directory}; nothing to end")
    with _progress(transient=True) as progress:
        task = progress.add_task("ending processes", total=None)
        ended = detach.stop(directory)
        progress.update(task, description="removing containers and networks")
        try:
            removed = [line for text in detach.purge(directory, volumes=purge) for line in text.splitlines()]
        except StackFailed as error:
            stop(Exit.FAILED, f"down.{error.part}", error.why)
        if purge:
            progress.update(task, description=f"deleting {directory}")
            layout.remove()
    if json_:
        as_json({"processes": ended, "removed": removed, "purged": purge})
    else:
        OUT.print(f"{ended} processes ended; {len(removed)} containers, networks and volumes removed")


def bring_up(directory: Path, settings: StackSettings) -> None:
    """Start a detached stack with progress on standard error; end the command where a part fails."""
    try:
        with _progress() as progress:
            detach.start(directory, settings, _reporter(progress))
    except StackFailed as error:
        stop(Exit.FAILED, f"up.{error.part}", error.why)
    except KeyboardInterrupt:
        stop(Exit.INTERRUPTED, "up.interrupted", "what had started was ended again")


@contextmanager
def _progress(*, transient: bool = False) -> Iterator[Progress]:
    columns = (
        SpinnerColumn(finished_text="[green]ok[/]"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=ERRORS, transient=transient) as progress:
        yield progress


def _reporter(progress: Progress) -> Report:
    tasks: dict[str, TaskID] = {}

    def report(step: Step) -> None:
        if step.state is StepState.BEGUN:
            tasks[step.part] = progress.add_task(f"starting {step.part}", total=1)
        else:
            text = f"{step.part:<10} {escape(step.detail)}"
            progress.update(tasks[step.part], description=text, completed=1)

    return report


def _describe(directory: Path, endpoints: Endpoints) -> None:
    OUT.print(f"REST   {endpoints.api_url}   key {endpoints.api_key}", soft_wrap=True)
    OUT.print(f"MQTT   {endpoints.mqtt_host}:{endpoints.mqtt_port}   {endpoints.topic_root}", soft_wrap=True)
    OUT.print(f"all    {directory / 'endpoints.json'}", soft_wrap=True)


def _stay(directory: Path) -> None:
    """Wait for Ctrl-C or a polite signal, then end the stack; containers go on running."""
    ERRORS.print("Ctrl-C ends the stack; containers go on. fleet down removes them too.")
    wanted = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    signal.sigwait(wanted)
    with _progress(transient=True) as progress:
        progress.add_task("ending processes", total=None)
        detach.stop(directory)
