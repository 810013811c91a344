"""Deployments and releases: ordered, listed, watched."""

# ruff: noqa: D401 - a handler's docstring describes the operation, whose summary is the imperative

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import Field

from cloud.api.dependencies import (
    NO_QUERY,
    Caller,
    DeploymentId,
    Parts,
    ReleaseId,
    Scope,
    body,
    needs,
    query,
)
from cloud.api.envelope import ALWAYS, ASKED, GUARDED, READ, Envelope, refusals
from cloud.api.openapi import takes
from cloud.api.paging import PageQuery, before
from cloud.api.waiting import Waiting, wait_until
from cloud.feed import Ended
from cloud.store import deployments, releases
from cloud.store.deployments import DeviceProgress, DeviceState
from cloud.store.tables import DeploymentRow, ReleaseRow
from schemas.base import Counter, Id, Message, UtcDatetime
from schemas.desired import DeploymentConfig, Release, Target
from schemas.errors import ErrorCode, Problem
from schemas.reported import Outcome, Phase

router = APIRouter(prefix="/edge", tags=["deployments"])


class Deployed(Message):
    """What was ordered, and the addresses where to watch it."""

    deployment_id: Id
    release_id: Id
    devices: Annotated[dict[Id, Counter], Field(description="The generation each device got.")]
    links: dict[str, str]


class DeploymentView(Message):
    """An order to bring a release to devices."""

    id: Id
    release_id: Id
    target: Target
    strategy: dict[str, Any]
    created_at: UtcDatetime
    created_by: str


class DeploymentPage(Message):
    """Some deployments, the newest first; `next` goes into `after`."""

    deployments: list[DeploymentView]
    next: UtcDatetime | None


class DeviceProgressView(Message):
    """How far one device is, by its own word; null: it has not said."""

    device: Id
    generation: Counter
    state: DeviceState
    outcome: Outcome | None
    phase: Phase | None
    well: Annotated[bool | None, Field(description="Whether each of its services is as it should be now.")]
    problems: list[Problem]
    issued_at: UtcDatetime
    published_at: Annotated[UtcDatetime | None, Field(description="When the broker took the order.")]
    ended_at: UtcDatetime | None


class DeploymentStatus(DeploymentView):
    """A deployment and how far each device is. `ended`: every device has an outcome or a newer order."""

    ended: bool
    states: Annotated[dict[DeviceState, int], Field(description="How many devices are in each state.")]
    devices: list[DeviceProgressView]


class ReleaseView(Message):
    """A stored release."""

    id: Id
    name: str
    version: str
    digest: str
    created_at: UtcDatetime


class ReleaseDetail(ReleaseView):
    """A stored release with its content."""

    release: Release


class ReleasePage(Message):
    """Some releases, the newest first; `next` goes into `after`."""

    releases: list[ReleaseView]
    next: UtcDatetime | None


_WEB = {
    "name": "web",
    "image": "registry.example/shop/web:1.2",
    "ports": [{"container": 8080, "host": 8080}],
    "health": {"type": "http", "port": 8080, "path": "/health"},
}
_EXAMPLES = {
    "an inline release, by label": {
        "release": {"name": "shop", "version": "1.2.0", "services": [_WEB]},
        "target": {"selector": "site=lab,model!=nano"},
    },
    "a stored release, by id": {
        "release": "7c2f6a1e-3b0d-4d8f-8a55-0c1d2e3f4a5b",
        "target": {"devices": ["0b6f2f6e-7d0f-4d5a-9c39-0d6f3e3b9a11"]},
        "strategy": {"kind": "all_at_once"},
    },
}
_OF_A_RELEASE = (
    ErrorCode.MANIFEST_CYCLE,
    ErrorCode.MANIFEST_TOO_MANY_SERVICES,
    ErrorCode.MANIFEST_DUPLICATE_SERVICE,
    ErrorCode.MANIFEST_UNKNOWN_DEPENDENCY,
    ErrorCode.MANIFEST_NO_HEALTH_CHECK,
    ErrorCode.PORT_INVALID,
    ErrorCode.POLICY_RESERVED_NAME,
    ErrorCode.SCHEMA_UNSUPPORTED_VERSION,
    ErrorCode.RELEASE_UNKNOWN,
    ErrorCode.RELEASE_CHANGED,
)
_OF_A_TARGET = (ErrorCode.DEVICE_UNKNOWN, ErrorCode.TARGET_EMPTY, ErrorCode.SELECTOR_SYNTAX)


@router.post(
    "/deploy",
    operation_id="deploy",
    summary="Bring a release to devices",
    status_code=202,
    dependencies=[NO_QUERY],
    responses=refusals(*GUARDED, *READ, *_OF_A_RELEASE, *_OF_A_TARGET, *ALWAYS),
    openapi_extra=takes(body=DeploymentConfig, examples=_EXAMPLES),
)
async def deploy(
    request: Request,
    caller: Annotated[Caller, needs(Scope.DEPLOY_WRITE)],
    order: Annotated[DeploymentConfig, body(DeploymentConfig)],
    services: Parts,
) -> Envelope[Deployed]:
    """Each target device gets a new generation. Offline devices get theirs when they come back.

    The answer says that the order is stored; the broker may get it for some devices a little later
    (`published_at` of the deployment's devices).

    A release is immutable: its name and version never stand for other content (`release.changed`).
    A repeat of the request is a new deployment, which changes nothing on devices that run the release.
    """
    row, generations = await services.deployer.deploy(order, by=caller.signature)
    links = {
        "deployment": str(request.app.url_path_for("get_deployment", deployment=str(row.id))),
        "release": str(request.app.url_path_for("get_release", release=str(row.release_id))),
        "events": str(request.app.url_path_for("follow_events")),
    }
    done = Deployed(deployment_id=row.id, release_id=row.release_id, devices=generations, links=links)
    return Envelope[Deployed](data=done, message=f"ordered for {len(generations)} devices")


@router.get(
    "/deployments",
    operation_id="list_deployments",
    summary="List deployments",
    dependencies=[needs(Scope.DEPLOY_READ)],
    responses=refusals(*GUARDED, *ASKED, *ALWAYS),
    openapi_extra=takes(query=PageQuery),
)
async def list_deployments(
    asked: Annotated[PageQuery, query(PageQuery)], services: Parts
) -> Envelope[DeploymentPage]:
    """The newest first."""
    async with services.database.session() as session:
        rows = await deployments.listing(session, before=before(asked), limit=asked.limit)
    following = rows[-1].created_at if len(rows) == asked.limit else None
    found = [DeploymentView(**_of_deployment(row)) for row in rows]
    return Envelope[DeploymentPage](data=DeploymentPage(deployments=found, next=following))


@router.get(
    "/deployments/{deployment}",
    operation_id="get_deployment",
    summary="Show one deployment",
    dependencies=[needs(Scope.DEPLOY_READ)],
    responses=refusals(*GUARDED, *ASKED, ErrorCode.DEPLOYMENT_UNKNOWN, *ALWAYS),
    openapi_extra=takes(query=Waiting),
)
async def get_deployment(
    request: Request, deployment: DeploymentId, waiting: Annotated[Waiting, query(Waiting)], services: Parts
) -> Envelope[DeploymentStatus]:
    """How far each device is. With `wait`, answers as soon as every device has an outcome."""

    async def look() -> DeploymentStatus:
        async with services.database.session() as session:
            row = await deployments.require(session, deployment)
            return _status(row, await deployments.progress(session, deployment))

    with services.feed.watch(Ended(deployment)) as watch:
        status = await wait_until(
            look,
            lambda found: found.ended,
            first=await look(),
            watch=watch,
            feed=services.feed,
            request=request,
            seconds=waiting.wait,
        )
    told = ", ".join(f"{count} {state}" for state, count in status.states.items())
    return Envelope[DeploymentStatus](data=status, message=told)


@router.get(
    "/releases",
    operation_id="list_releases",
    summary="List releases",
    dependencies=[needs(Scope.DEPLOY_READ)],
    responses=refusals(*GUARDED, *ASKED, *ALWAYS),
    openapi_extra=takes(query=PageQuery),
)
async def list_releases(
    asked: Annotated[PageQuery, query(PageQuery)], services: Parts
) -> Envelope[ReleasePage]:
    """The newest first."""
    async with services.database.session() as session:
        rows = await releases.listing(session, before=before(asked), limit=asked.limit)
    following = rows[-1].created_at if len(rows) == asked.limit else None
    found = [ReleaseView(**_of_release(row)) for row in rows]
    return Envelope[ReleasePage](data=ReleasePage(releases=found, next=following))


@router.get(
    "/releases/{release}",
    operation_id="get_release",
    summary="Show one release",
    dependencies=[needs(Scope.DEPLOY_READ), NO_QUERY],
    responses=refusals(*GUARDED, *ASKED, ErrorCode.RELEASE_UNKNOWN, *ALWAYS),
)
async def get_release(release: ReleaseId, services: Parts) -> Envelope[ReleaseDetail]:
    """Its whole content."""
    async with services.database.session() as session:
        row = await releases.require(session, release)
    detail = ReleaseDetail(**_of_release(row), release=releases.release_of(row))
    return Envelope[ReleaseDetail](data=detail)


def _of_release(row: ReleaseRow) -> dict[str, Any]:
    fields = ("id", "name", "version", "digest", "created_at")
    return {field: getattr(row, field) for field in fields}


def _of_deployment(row: DeploymentRow) -> dict[str, Any]:
    fields = ("id", "release_id", "strategy", "created_at", "created_by")
    devices: list[UUID] | None = row.target.get("devices")
    target = Target(devices=devices, selector=row.target.get("selector"))
    return {"target": target, **{field: getattr(row, field) for field in fields}}


def _status(row: DeploymentRow, progress: list[DeviceProgress]) -> DeploymentStatus:
    states = [each.state for each in progress]
    return DeploymentStatus(
        **_of_deployment(row),
        ended=all(each.ended_at is not None for each in progress),
        states={state: states.count(state) for state in DeviceState if state in states},
        devices=[
            DeviceProgressView(
                device=each.device,
                generation=each.generation,
                state=each.state,
                outcome=each.outcome,
                phase=each.phase,
                well=each.well,
                problems=list(each.problems),
                issued_at=each.issued_at,
                published_at=each.published_at,
                ended_at=each.ended_at,
            )
            for each in progress
        ],
    )
