"""Samples: asked for by device, measurement, field and time; and the catalogue of what there is."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from cloud.api.dependencies import NO_QUERY, Parts, Scope, fit_query, forms_of, needs, read_id
from cloud.api.envelope import ALWAYS, ASKED, GUARDED, Envelope, refusals
from cloud.api.openapi import takes
from cloud.api.timespans import DURATION, MOMENT, duration_of, moment_of
from cloud.metrics.protocol import Aggregate, Query, Series
from schemas.base import Document, Id, Message, UtcDatetime, print_time
from schemas.catalogue import CATALOGUE, Measurement
from schemas.errors import ErrorCode, refuse, shown
from schemas.telemetry import Identifier

router = APIRouter(prefix="/edge/monitoring", tags=["monitoring"])

MAX_DEVICES = 100
_TAG = "tag."


class MetricsQuery(Document):
    """Which samples."""

    measurement: Annotated[Identifier, Field(examples=["device"], description="See the catalogue.")]
    device: Annotated[
        list[str],
        Field(max_length=MAX_DEVICES, description="Device ids; repeat or separate by commas. Absent: all."),
    ] = []
    field: Annotated[
        list[Identifier],
        Field(
            max_length=64,
            examples=[["cpu_percent"]],
            description="Fields; repeat or separate by commas. Absent: all.",
        ),
    ] = []
    start: Annotated[
        str,
        Field(
            max_length=64,
            examples=["-15m"],
            description="RFC 3339, or before now: `-15m`, `-2h`, `-7d`.",
            json_schema_extra={"pattern": MOMENT},
        ),
    ] = "-1h"
    end: Annotated[
        str,
        Field(
            max_length=64,
            description="Not included. Written like `start`, or `now`.",
            json_schema_extra={"pattern": MOMENT},
        ),
    ] = "now"
    every: Annotated[
        str | None,
        Field(
            max_length=64,
            examples=["30s"],
            description="One value for each such stretch: `30s`, `5m`.",
            json_schema_extra={"pattern": DURATION},
        ),
    ] = None
    aggregate: Annotated[
        Aggregate | None,
        Field(
            description="How the values of a stretch become one. Default: `mean` with `every`, else `none`."
        ),
    ] = None


_FORMS = forms_of(MetricsQuery)


class SeriesView(Message):
    """The values of one field of one thing, oldest first."""

    device: Id
    tags: dict[str, str]
    field: str
    unit: Annotated[str, Field(description="By the catalogue; empty for what services send of their own.")]
    points: Annotated[
        list[tuple[UtcDatetime, bool | int | float | str]], Field(examples=[[["2026-01-31T12:00:00Z", 12.5]]])
    ]


class Samples(Message):
    """What was asked, resolved, and the answer."""

    measurement: str
    start: UtcDatetime
    end: UtcDatetime
    every: Annotated[float | None, Field(description="Seconds.")]
    aggregate: Aggregate
    series: list[SeriesView]


class FieldView(Message):
    """One field of a measurement."""

    name: str
    type: Annotated[str, Field(pattern="^(float|int|str|bool)$", examples=["float"])]
    unit: str
    text: str


class MeasurementView(Message):
    """One measurement. Without fields it takes any."""

    name: str
    text: str
    tags: list[str]
    fields: list[FieldView]


class CatalogueView(Message):
    """Everything the agent measures."""

    measurements: list[MeasurementView]


async def _read(request: Request) -> tuple[MetricsQuery, dict[str, str]]:
    """Return the query and the wanted tags, which stand in it as `tag.NAME=value`."""
    items = request.query_params.multi_items()
    tags = {name.removeprefix(_TAG): value for name, value in items if name.startswith(_TAG)}
    for name, value in tags.items():
        if (
            not (name.isascii() and name.replace("_", "a").isidentifier())
            or not value.isprintable()
            or not value
        ):
            message = f"tag.{name}: {shown(value)} is no tag and value, such as tag.service=web"
            refuse(ErrorCode.VALUE_BAD_CHARACTER, message[:2000], field=f"tag.{name}"[:300])
    rest = [(name, value) for name, value in items if not name.startswith(_TAG)]
    return fit_query(MetricsQuery, rest, _FORMS), tags


@router.get(
    "/metrics",
    operation_id="query_metrics",
    summary="Query samples",
    dependencies=[needs(Scope.METRICS_READ)],
    response_model=Envelope[Samples],
    responses=refusals(
        *GUARDED,
        *ASKED,
        ErrorCode.FIELD_MISSING,
        ErrorCode.VALUE_BAD_CHARACTER,
        ErrorCode.DEVICE_BAD_ID,
        ErrorCode.QUERY_TOO_WIDE,
        ErrorCode.METRICS_UNREACHABLE,
        ErrorCode.METRICS_REFUSED,
        *ALWAYS,
    ),
    openapi_extra=takes(query=MetricsQuery),
)
async def query_metrics(
    asked: Annotated[tuple[MetricsQuery, dict[str, str]], Depends(_read)], services: Parts
) -> JSONResponse:
    """Values in `[start, end)`, as written or one per stretch of `every` (aligned to 1970-01-01 UTC).

    `tag.NAME=value` keeps only things with that tag, such as `tag.service=web`.
    """
    query = _query(*asked, services.now())
    series = await services.metrics.query(query)
    return JSONResponse(await asyncio.to_thread(_answer, query, series))


@router.get(
    "/catalogue",
    operation_id="get_catalogue",
    summary="Show what is measured",
    dependencies=[needs(Scope.METRICS_READ), NO_QUERY],
    responses=refusals(*GUARDED, *ASKED, *ALWAYS),
)
async def get_catalogue() -> Envelope[CatalogueView]:
    """Every measurement of the agent with its tags, fields and units."""
    found = [_measurement(each) for each in CATALOGUE.values()]
    return Envelope[CatalogueView](data=CatalogueView(measurements=found))


def _query(asked: MetricsQuery, tags: dict[str, str], now: datetime) -> Query:
    devices = tuple(read_id(each, ErrorCode.DEVICE_BAD_ID, "device") for each in asked.device)
    default = Aggregate.MEAN if asked.every else Aggregate.NONE
    return Query(
        measurement=asked.measurement,
        start=moment_of(asked.start, "start", now),
        end=moment_of(asked.end, "end", now),
        devices=devices or None,
        fields=tuple(asked.field),
        every=duration_of(asked.every, "every") if asked.every is not None else None,
        aggregate=asked.aggregate or default,
        tags=tags,
    )


def _answer(query: Query, series: Sequence[Series]) -> dict[str, Any]:
    """Return the envelope as plain JSON values: tens of thousands of points need no validation of our own."""
    known = CATALOGUE.get(query.measurement)
    data = {
        "measurement": query.measurement,
        "start": print_time(query.start),
        "end": print_time(query.end),
        "every": query.every.total_seconds() if query.every else None,
        "aggregate": query.aggregate,
        "series": [_series(each, known) for each in series],
    }
    count = sum(len(each.points) for each in series)
    return {"status": "ok", "data": data, "message": f"{count} points in {len(series)} series"}


def _series(series: Series, known: Measurement | None) -> dict[str, Any]:
    spec = known.field(series.field) if known else None
    return {
        "device": str(series.device),
        "tags": dict(series.tags),
        "field": series.field,
        "unit": spec.unit if spec else "",
        "points": [[print_time(at), value] for at, value in series.points],
    }


def _measurement(measurement: Measurement) -> MeasurementView:
    fields = [
        FieldView(name=each.name, type=each.type.__name__, unit=each.unit, text=each.text)
        for each in measurement.fields
    ]
    return MeasurementView(
        name=measurement.name, text=measurement.text, tags=list(measurement.tags), fields=fields
    )
