"""Whether the cloud works: its broker link, its database, its metrics."""

import asyncio
from time import perf_counter
from typing import Annotated

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import Field

from cloud import VERSION
from cloud.api.dependencies import NO_QUERY, Parts
from cloud.api.envelope import Envelope
from cloud.services import Services
from schemas.base import Message, UtcDatetime
from schemas.errors import ErrorCode, FleetError

router = APIRouter(tags=["health"])

PATIENCE = 5.0
"""Seconds a part may take to answer."""


class PartHealth(Message):
    """One part: whether it answers, why not, and how long it took."""

    ok: bool
    code: Annotated[str, Field(examples=[""], description="A stable code; empty when all is well.")] = ""
    reason: str = ""
    latency_ms: Annotated[float, Field(ge=0, examples=[0.4])] = 0


class PartsHealth(Message):
    """What the cloud cannot work without."""

    broker: PartHealth
    store: PartHealth
    metrics: PartHealth


class CloudHealth(Message):
    """The cloud's version, its clock, and its parts."""

    version: str
    time: UtcDatetime
    parts: PartsHealth


class HealthAnswer(Message):
    """The envelope with the report inside, also when something is wrong."""

    status: Annotated[str, Field(pattern="^(ok|error)$")]
    data: CloudHealth
    message: str
    code: str = ""


_EXAMPLE = {
    "version": "0.1.0",
    "time": "2026-01-31T12:00:00Z",
    "parts": {
        "broker": {"ok": False, "code": "broker.unreachable", "reason": "not connected", "latency_ms": 0},
        "store": {"ok": True, "code": "", "reason": "", "latency_ms": 0.4},
        "metrics": {"ok": True, "code": "", "reason": "", "latency_ms": 1.2},
    },
}


@router.head("/health", include_in_schema=False, dependencies=[NO_QUERY])
@router.get(
    "/health",
    operation_id="get_health",
    summary="Say whether the cloud works",
    dependencies=[NO_QUERY],
    response_model=Envelope[CloudHealth],
    responses={
        503: {
            "model": HealthAnswer,
            "description": "A part does not answer; `data` says which and why.",
            "content": {
                "application/json": {
                    "example": {
                        "status": "error",
                        "data": _EXAMPLE,
                        "message": "broker: not connected",
                        "code": "broker.unreachable",
                    }
                }
            },
        }
    },
)
async def get_health(services: Parts) -> JSONResponse:
    """Broker link, database and metrics, each with reason and latency. Needs no key."""
    store, metrics = await asyncio.gather(_store(services), _metrics(services))
    parts = {"broker": _broker(services), "store": store, "metrics": metrics}
    health = CloudHealth(version=VERSION, time=services.now(), parts=PartsHealth.model_validate(parts))
    ill = {name: part for name, part in parts.items() if not part.ok}
    content = {
        "status": "error" if ill else "ok",
        "data": health.model_dump(mode="json"),
        "message": "; ".join(f"{name}: {part.reason}" for name, part in ill.items()),
    }
    if ill:
        content["code"] = next(iter(ill.values())).code
    return JSONResponse(content, status_code=503 if ill else 200)


def _broker(services: Services) -> PartHealth:
    if services.bus_connected():
        return PartHealth(ok=True)
    return PartHealth(
        ok=False, code=ErrorCode.BROKER_UNREACHABLE, reason="the cloud is not connected to the broker"
    )


async def _store(services: Services) -> PartHealth:
    began = perf_counter()
    try:
        async with asyncio.timeout(PATIENCE):
            await services.database.check()
    except (FleetError, TimeoutError):
        reason = "the database does not answer; the log says more"
        return PartHealth(ok=False, code=ErrorCode.STORE_UNREACHABLE, reason=reason, latency_ms=_since(began))
    return PartHealth(ok=True, latency_ms=_since(began))


async def _metrics(services: Services) -> PartHealth:
    began = perf_counter()
    try:
        async with asyncio.timeout(PATIENCE):
            found = await services.metrics.check()
    except TimeoutError:
        return PartHealth(
            ok=False,
            code=ErrorCode.METRICS_UNREACHABLE,
            reason="the metrics database does not answer",
            latency_ms=_since(began),
        )
    if found.problem is None:
        return PartHealth(ok=True, latency_ms=_since(began))
    reason = f"the metrics database ({found.kind}) cannot be used; the log says more"
    return PartHealth(ok=False, code=found.problem.code, reason=reason, latency_ms=_since(began))


def _since(began: float) -> float:
    return round((perf_counter() - began) * 1000, 2)
