"""Enrolment: tokens for new devices, and the certificates they buy."""

# ruff: noqa: D401 - a handler's docstring describes the operation, whose summary is the imperative

import asyncio
import shlex
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import Field

from cloud.api.attempts import Attempts
from cloud.api.dependencies import NO_QUERY, Parts, Scope, body, needs
from cloud.api.envelope import ALWAYS, GUARDED, READ, Envelope, refusals
from cloud.api.errors import TooManyAttempts
from cloud.api.openapi import takes
from cloud.feed import Told
from cloud.pki.enrolment import Identity, Issued, identity_of, issue
from cloud.services import Services
from cloud.store import enrolment, events
from schemas.base import Document, LabelKey, LabelValue, Message, UtcDatetime
from schemas.device import EnrolmentAnswer, EnrolmentRequest
from schemas.errors import ErrorCode, FleetError, problem

router = APIRouter(prefix="/edge/enrolment", tags=["enrolment"])


class TokenRequest(Document):
    """A right for new devices to enrol."""

    labels: Annotated[
        dict[LabelKey, LabelValue],
        Field(
            max_length=50, description="Given to every device that comes with it; win over the device's own."
        ),
    ] = {}
    ttl: Annotated[int, Field(ge=1, le=31_536_000, description="Seconds until it expires.")] = 3600
    uses: Annotated[int, Field(ge=1, le=100_000, description="How many devices may use it.")] = 1


class NewToken(Message):
    """A token just made: the only time it is shown."""

    id: UUID
    token: Annotated[str, Field(examples=["flt_..."])]
    labels: dict[str, str]
    expires_at: UtcDatetime
    uses: int
    line: Annotated[
        str,
        Field(
            description="What to type on the device.",
            examples=["fleet-agent run --enrol-url https://fleet.example/api/v1 --token flt_..."],
        ),
    ]


@router.post(
    "/tokens",
    operation_id="create_enrolment_token",
    summary="Make an enrolment token",
    status_code=201,
    dependencies=[needs(Scope.ENROLMENT_WRITE), NO_QUERY],
    responses=refusals(*GUARDED, *READ, *ALWAYS),
    openapi_extra=takes(
        body=TokenRequest,
        examples={
            "one device, within the hour": {},
            "a box of ten": {"labels": {"site": "lab"}, "ttl": 86400, "uses": 10},
        },
    ),
)
async def create_enrolment_token(
    request: Request, order: Annotated[TokenRequest, body(TokenRequest)], services: Parts
) -> Envelope[NewToken]:
    """The answer shows the token, once, in the line to type on the device."""
    async with services.database.session() as session:
        row, token = await enrolment.create_token(
            session,
            labels=order.labels,
            ttl=timedelta(seconds=order.ttl),
            uses=order.uses,
            now=services.now(),
        )
    url = f"{str(request.base_url).rstrip('/')}/api/v1"
    made = NewToken(
        id=row.id,
        token=token,
        labels=row.labels,
        expires_at=row.expires_at,
        uses=order.uses,
        line=f"fleet-agent run --enrol-url {shlex.quote(url)} --token {token}",
    )
    return Envelope[NewToken](data=made, message="keep the token now: it is not shown again")


@router.post(
    "/certificates",
    operation_id="enrol",
    summary="Enrol a device",
    status_code=201,
    dependencies=[NO_QUERY],
    responses=refusals(
        *READ,
        ErrorCode.CLAIM_UNKNOWN,
        ErrorCode.CLAIM_EXPIRED,
        ErrorCode.CLAIM_USED,
        ErrorCode.CLAIM_DEVICE_TAKEN,
        ErrorCode.CLAIM_TOO_MANY_ATTEMPTS,
        ErrorCode.CSR_INVALID,
        ErrorCode.CSR_WEAK_KEY,
        ErrorCode.CSR_SUBJECT_MISMATCH,
        ErrorCode.CSR_EXTENSION_NOT_ALLOWED,
        *ALWAYS,
    ),
    openapi_extra=takes(
        body=EnrolmentRequest,
        examples={
            "a new device": {
                "token": "flt_8R2mSg0gqk6vQ3p0n1o2p3q4r5s6t7u8v9w0x1y2z3A",
                "csr": "-----BEGIN CERTIFICATE REQUEST-----\n...\n-----END CERTIFICATE REQUEST-----\n",
                "name": "door sensor",
                "labels": {"site": "lab"},
            }
        },
    ),
)
async def enrol(
    request: Request, claim: Annotated[EnrolmentRequest, body(EnrolmentRequest)], services: Parts
) -> Envelope[EnrolmentAnswer]:
    """A token and a certificate request (CN: the device's id) buy a certificate. Needs no key.

    The same device may repeat its claim with the same key, if the answer was lost. An address that is
    refused too often has to wait (429, `Retry-After`).
    """
    attempts: Attempts = request.app.state.attempts
    address = request.client.host if request.client else ""
    if seconds := attempts.seconds_to_wait(address, services.now()):
        message = f"too many refused enrolments from this address; try again in {seconds} s"
        raise TooManyAttempts(problem(ErrorCode.CLAIM_TOO_MANY_ATTEMPTS, message), seconds)
    try:
        identity = await asyncio.to_thread(identity_of, claim.csr)
        issued = await _let_in(services, claim, identity)
    except FleetError as error:
        if error.status < 500:  # noqa: PLR2004 - our own failure is no attempt of theirs
            attempts.note(address, services.now())
        raise
    settings = services.settings
    answer = EnrolmentAnswer(
        device=identity.device,
        certificate=issued.chain,
        ca=issued.root,
        mqtt_host=settings.device_mqtt_host,
        mqtt_port=settings.device_mqtt_port,
        topic_root=settings.topic_root,
    )
    return Envelope[EnrolmentAnswer](data=answer, message=f"device {identity.device} is enrolled")


async def _let_in(services: Services, claim: EnrolmentRequest, identity: Identity) -> Issued:
    """Use the token, sign, and store the device: all of it or nothing."""
    now = services.now()
    issued = await asyncio.to_thread(issue, services.authority, claim.csr, identity.device, now)
    async with services.database.session() as session:
        token = await enrolment.claim(session, claim.token, identity.device, now)
        new = await enrolment.admit(
            session,
            identity.device,
            key=identity.key,
            name=claim.name,
            labels={**claim.labels, **token.labels},
            certificate_expires_at=issued.expires_at,
            now=now,
        )
        if new:
            await events.append(session, events.Kind.ENROLLED, identity.device, {"name": claim.name}, now)
    services.feed.notify(Told(), Told(identity.device))
    return issued
