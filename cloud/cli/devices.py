"""`fleet devices` and `fleet status`: who is there, and how one is."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from cloud.cli.client import Api
from cloud.cli.options import Json, remote
from cloud.cli.output import (
    BAD,
    GOOD,
    OUT,
    UNSURE,
    ago,
    as_json,
    bytes_word,
    coloured,
    online_word,
    pairs,
    table,
)

_WIDE = 120
_SHORT_ID = 8


@remote
def devices(
    api: Api,
    selector: Annotated[
        str | None, typer.Option("--selector", "-l", help="Labels, such as site=lab.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Show at most so many; 0: all.")] = 0,
    *,
    online: Annotated[bool | None, typer.Option("--online/--offline", help="Only these.")] = None,
    json_: Json = False,
) -> None:
    """List devices."""
    found = list(
        api.pages(
            "/edge/devices",
            "devices",
            most=limit,
            selector=selector,
            online=online,
            limit=min(limit or 500, 500),
        )
    )
    if json_:
        as_json(found)
    else:
        OUT.print(devices_table(sorted(found, key=lambda each: str(each["name"]))))


@remote
def status(
    api: Api,
    device: Annotated[str, typer.Argument(help="Id, name, or the beginning of an id.")],
    *,
    json_: Json = False,
) -> None:
    """Show everything the cloud knows of one device. Services are as the device itself reports them."""
    found = api.get(f"/edge/devices/{api.device(device)['id']}/status")
    if json_:
        as_json(found)
    else:
        OUT.print(_status(found))


def devices_table(found: list[dict[str, Any]]) -> Table:
    """Return the console's table of devices; a narrow console gets the beginnings of ids."""
    wide = OUT.width >= _WIDE
    columns = ("NAME", "ID", "PRESENCE", "SERVICES", "ORDERS", "SEEN", *(("LABELS",) if wide else ()))
    rows = (
        (
            escape(each["name"]),
            each["id"] if wide else each["id"][:_SHORT_ID],
            online_word(each["online"]),
            _services_word(each["services"]),
            _settled_word(each["settled"]),
            ago(each["seen_at"]),
            *((_pairs(each["labels"]),) if wide else ()),
        )
        for each in found
    )
    return table(columns, rows)


def _pairs(labels: dict[str, str]) -> str:
    return escape(" ".join(f"{name}={value}" for name, value in labels.items()))


def _services_word(count: dict[str, int]) -> str:
    if not count["all"]:
        return "none"
    text = f"{count['well']} of {count['all']} well"
    return coloured(text, GOOD if count["well"] == count["all"] else BAD)


def _settled_word(settled: bool | None) -> str:  # noqa: FBT001 - a value, not a switch
    match settled:
        case True:
            return coloured("carried out", GOOD)
        case False:
            return coloured("under way", UNSURE)
        case None:
            return coloured("unknown", UNSURE)


def _status(found: dict[str, Any]) -> Group:
    facts, told = found["facts"] or {}, found["reported"] or {}
    arrival = (told.get("phase", "nothing yet"), told.get("outcome"))
    head = pairs(
        [
            ("device", f"{escape(found['name'])}  {found['id']}"),
            ("presence", f"{online_word(found['online'])}, last heard {ago(found['seen_at'])}"),
            ("labels", _pairs(found["labels"])),
            (
                "machine",
                escape(
                    f"{facts.get('model') or 'unknown model'}, {facts.get('architecture', '?')},"
                    f" {facts.get('cpu_count', '?')} cores, {bytes_word(facts.get('memory_bytes', 0))},"
                    f" {facts.get('os', '?')}"
                ),
            ),
            (
                "software",
                escape(f"agent {facts.get('agent_version', '?')}, {facts.get('engine') or 'unknown engine'}"),
            ),
            (
                "ordered",
                "generation {generation}, configuration {config_version}".format(**found["ordered"]),
            ),
            (
                "reported",
                escape(
                    f"generation {told.get('generation', 0)}, {' '.join(filter(None, arrival))},"
                    f" configuration {told.get('config_version', 0)}"
                ),
            ),
            ("certificate", f"until {found['certificate_expires_at'][:10]}"),
        ],
    )
    services = table(
        ("SERVICE", "STATE", "HEALTH", "IMAGE", "RESTARTS", "SINCE", "PORTS"),
        (
            (
                each["name"],
                each["state"],
                coloured(each["health"], {"healthy": GOOD, "unhealthy": BAD}.get(each["health"], UNSURE)),
                escape(each["image"]),
                str(each["restarts"]),
                ago(each.get("started_at")),
                " ".join(f"{port['address']}:{port['host']}->{port['container']}" for port in each["ports"]),
            )
            for each in found["services"]
        ),
    )
    troubles = [coloured(f"{each['code']}: {each['message']}", BAD) for each in found["problems"]]
    troubles += [
        coloured(f"{each['name']}: {each['error']['code']}: {each['error']['message']}", BAD)
        for each in found["services"]
        if each.get("error")
    ]
    return Group(head, "", services, *troubles)
