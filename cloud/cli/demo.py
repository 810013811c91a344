"""`fleet demo`: a small fleet on this machine, from nothing to running services, in a minute."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn
from uuid import uuid4

import typer
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel

import cloud
from cloud.cli.client import Api, Door
from cloud.cli.command import await_answer, order
from cloud.cli.deploy import progress_table, read_release, watch
from cloud.cli.devices import devices_table
from cloud.cli.exits import ERRORS, Exit, stop
from cloud.cli.metrics import metrics_table
from cloud.cli.options import DataDir
from cloud.cli.output import GOOD, OUT, coloured
from cloud.cli.stack import bring_up
from cloud.stack import detach
from cloud.stack.layout import Endpoints, Layout, StackSettings
from schemas.commands import CommandStatus
from schemas.topics import Topics

IMAGE = "fleetline/demo:1"
_DEMO_DIR = Path(".fleetline/demo")
_FILES = Path(cloud.__file__).parent.parent / "deploy" / "demo"
_SHOWN = ("cpu_percent", "memory_percent", "load_1m", "net_received_bytes")
_INTERVAL = 2
_LOOKS = 5
_PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class _Fleet:
    """The demo's running stack."""

    directory: Path
    endpoints: Endpoints
    api: Api


def demo(
    data_dir: DataDir = None,
    devices: Annotated[int, typer.Option(min=1, max=20, help="Agents to run.")] = 3,
) -> None:
    """Show a small fleet at work: enrol, deploy, command, measure.

    It goes on running in the background; the last line says how to end it.
    """
    directory = (data_dir or _DEMO_DIR).absolute()
    _say("container image")
    _build_image()
    fleet = _start(directory, devices)
    _say("deploying shop 1.0.0: api waits until store is healthy")
    _deploy(fleet)
    _say("commands over REST: ping every device")
    for device in fleet.endpoints.device_ids:
        _ping(fleet, device)
    _say("a command over MQTT: restart api on the first device, with the operator's certificate")
    _restart_by_topic(fleet, fleet.endpoints.device_ids[0])
    _say(f"configuration: readings every {_INTERVAL} s")
    target = {"devices": fleet.endpoints.device_ids}
    fleet.api.post("/edge/config/update", {"target": target, "agent": {"telemetry_interval": _INTERVAL}})
    _say("live telemetry" + (" (Enter goes on)" if sys.stdin.isatty() else ""))
    _show_telemetry(fleet)
    OUT.print()
    _finish(fleet)


def _build_image() -> None:
    script = _FILES / "build-image.sh"
    if not script.exists():
        _fail("image", f"{script} is missing; run the demo from a checkout of the project")
    built = subprocess.run(  # noqa: S603 - our own script
        [str(script), IMAGE], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if built.returncode != 0:
        _fail("image", built.stderr.strip() or f"{script} ended with {built.returncode}")
    _done(f"{IMAGE} {built.stdout.strip()[:19]}")


def _start(directory: Path, devices: int) -> _Fleet:
    if Layout(directory).read_endpoints() is not None:
        _say("ending the demo that runs already")
        detach.stop(directory)
    bring_up(directory, StackSettings(devices=devices, http_port=0, mqtt_port=0, device_mqtt_port=0))
    endpoints = Layout(directory).read_endpoints()
    if endpoints is None:
        _fail("stack", f"it ended at once; see {Layout(directory).log('stack')}")
    return _Fleet(directory, endpoints, Api(Door(endpoints.api_url, endpoints.api_key)))


def _deploy(fleet: _Fleet) -> None:
    release = read_release(str(_FILES / "release.json"))
    made = fleet.api.post(
        "/edge/deploy", {"release": release, "target": {"devices": fleet.endpoints.device_ids}}
    )
    found = watch(fleet.api, made["deployment_id"], timeout=_PATIENCE, console=ERRORS)
    if any(each["outcome"] not in {"committed", "no_change"} for each in found["devices"]):
        OUT.print(progress_table(found))
        _fail("deploy", f"not every device committed; logs are in {fleet.directory / 'logs'}")


def _ping(fleet: _Fleet, device: str) -> None:
    began = time.perf_counter()
    row = order(fleet.api, device, "ping", {}, timeout=30)
    row = await_answer(fleet.api, row["id"], timeout=30)
    if row["status"] != CommandStatus.SUCCEEDED:
        _fail("ping", f"{device}: {row['status']} {row['detail']}")
    _done(f"{device} answered in {(time.perf_counter() - began) * 1000:.0f} ms")


def _restart_by_topic(fleet: _Fleet, device: str) -> None:
    command_id = str(uuid4())
    arguments = _publish_line(fleet.endpoints, device, command_id)
    publisher = shutil.which(arguments[0])
    if publisher is None:
        _fail("mqtt", "mosquitto_pub is not installed; run deploy/setup.sh")
    sent = subprocess.run(  # noqa: S603 - our own arguments
        [publisher, *arguments[1:]], capture_output=True, text=True, check=False, timeout=30
    )
    if sent.returncode != 0:
        _fail("mqtt", sent.stderr.strip())
    row = _until(lambda: _command(fleet, device, command_id), f"the answer to {command_id}")
    _done(f"{row['status']}: {row['detail']}")
    _until(lambda: _all_well(fleet), "every service to be well again")


def _command(fleet: _Fleet, device: str, command_id: str) -> dict[str, Any] | None:
    """Return the row of a command that was sent by topic, once it is final."""
    for row in fleet.api.get(f"/edge/devices/{device}/commands")["commands"]:
        if row["id"] == command_id and CommandStatus(row["status"]).final:
            return dict(row)
    return None


def _all_well(fleet: _Fleet) -> list[dict[str, Any]] | None:
    """Return the devices once each is online with every service of the release well."""
    found = list(fleet.api.pages("/edge/devices", "devices", limit=500))
    well = [each for each in found if each["online"] and each["services"] == {"well": 2, "all": 2}]
    return found if len(well) == len(fleet.endpoints.device_ids) else None


def _show_telemetry(fleet: _Fleet) -> None:
    _until(lambda: _readings(fleet), "the first readings")
    looks = 0
    with Live(_readings(fleet), console=OUT, auto_refresh=False) as live:
        while not _enough(looks):
            live.update(_readings(fleet) or "", refresh=True)
            looks += 1


def _enough(looks: int) -> bool:
    """Wait a moment; return whether to go on: on Enter at a terminal, else after a few looks."""
    if sys.stdin.isatty():
        readable, _, _ = select.select([sys.stdin], [], [], _INTERVAL)
        return bool(readable)
    time.sleep(_INTERVAL)
    return looks >= _LOOKS


def _readings(fleet: _Fleet) -> Group | None:
    tables = []
    for device in fleet.endpoints.device_ids:
        series = fleet.api.get(
            "/edge/monitoring/metrics", device=device, measurement="device", field=list(_SHOWN), start="-5m"
        )["series"]
        if not series:
            return None
        tables.append(Panel(metrics_table("device", series), title=device, title_align="left"))
    return Group(*tables)


def _finish(fleet: _Fleet) -> None:
    found = _until(lambda: _all_well(fleet), "every service to be healthy")
    OUT.print(devices_table(found))
    services = sum(each["services"]["well"] for each in found)
    OUT.print(coloured(f"{len(found)} devices online, {services} services healthy", GOOD))
    endpoints = fleet.endpoints
    ours = os.path.relpath(sys.argv[0])
    here = os.path.relpath(fleet.directory)
    publish = " ".join(_quoted(word) for word in _publish_line(endpoints, endpoints.device_ids[0], None))
    for title, line in {
        "REST": f"{endpoints.api_url}   key {endpoints.api_key}",
        "try": f"curl -H 'Authorization: Bearer {endpoints.api_key}' {endpoints.api_url}/edge/devices",
        "MQTT": publish,
        "look": f"{ours} status gateway-01 --data-dir {here}",
        "logs": f"{ours} logs gateway-01 api --follow --data-dir {here}",
        "stop": f"{ours} down --data-dir {here}",
    }.items():
        OUT.print(f"[bold]{title:<5}[/] {escape(line)}", soft_wrap=True)


def _publish_line(endpoints: Endpoints, device: str, command_id: str | None) -> list[str]:
    """Return the mosquitto_pub command that restarts api; without an id, one for a shell to make it."""
    topic = f"{Topics(endpoints.topic_root).root}/{device}/down/command/restart/{command_id or '$(uuidgen)'}"
    return [
        "mosquitto_pub",
        *("-h", endpoints.mqtt_host, "-p", str(endpoints.mqtt_port)),
        *("--cafile", str(endpoints.ca_file)),
        *("--cert", str(endpoints.operator_cert), "--key", str(endpoints.operator_key)),
        *("-q", "1", "-t", topic, "-m", json.dumps({"service": "api"}, separators=(",", ":"))),
    ]


def _quoted(word: str) -> str:
    return f"'{word}'" if "{" in word else word


def _until(look: Callable[[], Any], what: str) -> Any:
    """Return what *look* finds; end the demo where that takes too long."""
    deadline = time.monotonic() + _PATIENCE
    while not (found := look()):
        if time.monotonic() > deadline:
            _fail("demo", f"waited {_PATIENCE:.0f} s for {what}; fleet doctor may tell why")
        time.sleep(0.2)
    return found


def _say(text: str) -> None:
    OUT.print(f"[bold]{escape(text)}[/]")


def _done(text: str) -> None:
    OUT.print(f"  [green]ok[/] {escape(text)}", soft_wrap=True)


def _fail(part: str, why: str) -> NoReturn:
    stop(Exit.FAILED, f"demo.{part}", why)
