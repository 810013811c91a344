"""`fleet metrics`: readings of a device over time."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer
from rich.markup import escape

from cloud.cli.client import Api
from cloud.cli.exits import Exit, stop
from cloud.cli.options import Json, remote
from cloud.cli.output import OUT, as_json, bytes_word, table
from schemas.catalogue import CATALOGUE, Unit

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 16


@remote
def metrics(  # noqa: PLR0917 - one parameter for each option
    api: Api,
    device: Annotated[str, typer.Argument(help="Id, name, or the beginning of an id.")],
    measurement: Annotated[str, typer.Argument(help=f"One of: {', '.join(CATALOGUE)}.")] = "device",
    field: Annotated[
        list[str] | None, typer.Option("--field", "-f", help="Only this field; may be repeated.")
    ] = None,
    start: Annotated[str, typer.Option(help="RFC 3339, or back from now such as -15m.")] = "-15m",
    end: Annotated[str | None, typer.Option(help="RFC 3339, or back from now. Default: now.")] = None,
    every: Annotated[str | None, typer.Option(help="One value for each stretch, such as 30s or 5m.")] = None,
    aggregate: Annotated[str | None, typer.Option(help="mean, min, max, sum, count, first or last.")] = None,
    *,
    json_: Json = False,
) -> None:
    """Print readings: newest value, range, and a picture of each field."""
    found = api.device(device)
    series = api.get(
        "/edge/monitoring/metrics",
        device=found["id"],
        measurement=measurement,
        field=field or None,
        start=start,
        end=end,
        every=every,
        aggregate=aggregate,
    )["series"]
    if json_:
        as_json(series)
        return
    if not series:
        _know(measurement, field or [])
        OUT.print("no readings in that time; devices send every 10 s by default")
        return
    OUT.print(metrics_table(measurement, series))


def _know(measurement: str, fields: list[str]) -> None:
    """End the command where nothing was found because nothing is called that."""
    known = CATALOGUE.get(measurement)
    if known is None:
        message = f"nothing is measured as {measurement!r}; there are {', '.join(CATALOGUE)}"
        stop(Exit.NOT_FOUND, "field.unknown", message)
    strange = [name for name in fields if known.fields and known.field(name) is None]
    if strange:
        names = ", ".join(each.name for each in known.fields)
        stop(Exit.NOT_FOUND, "field.unknown", f"{measurement} has no field {strange[0]!r}; it has {names}")


def metrics_table(measurement: str, series: list[dict[str, Any]]) -> Any:
    """Return a table with a row for each series."""
    rows = []
    for each in series:
        values = [value for _, value in each["points"] if value is not None]
        if not values:
            continue
        unit = _unit(measurement, each["field"])
        tags = " ".join(f"{name}={value}" for name, value in each["tags"].items() if name != "device")
        numbers = [
            value for value in values if isinstance(value, int | float) and not isinstance(value, bool)
        ]
        span = f"{_word(min(numbers), unit)} - {_word(max(numbers), unit)}" if numbers else ""
        at = datetime.fromisoformat(each["points"][-1][0]).astimezone().strftime("%H:%M:%S")
        rows.append(
            (
                escape(each["field"]),
                escape(tags),
                escape(_word(values[-1], unit)),
                span,
                sparkline(numbers),
                at,
            )
        )
    return table(("FIELD", "TAGS", "NOW", "RANGE", "", "AT"), rows)


def sparkline(numbers: list[float]) -> str:
    """Return the last numbers as a row of bars, lowest to highest of what is shown."""
    shown = numbers[-_WIDTH:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[int((number - low) * scale)] for number in shown)


def _unit(measurement: str, field: str) -> Unit | None:
    known = CATALOGUE.get(measurement)
    spec = known.field(field) if known else None
    return spec.unit if spec else None


def _word(value: Any, unit: Unit | None) -> str:
    if isinstance(value, bool | str):
        return str(value).lower() if isinstance(value, bool) else value
    match unit:
        case Unit.BYTES:
            return bytes_word(value)
        case Unit.PERCENT:
            return f"{value:.1f} %"
        case Unit.CELSIUS:
            return f"{value:.1f} °C"
        case _:
            return f"{value:g}" if isinstance(value, int) or value == int(value) else f"{value:.2f}"
