"""API keys: made, listed, ended."""

# ruff: noqa: D401 - a handler's docstring describes the operation, whose summary is the imperative

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field, StringConstraints

from cloud.api.dependencies import NO_QUERY, Caller, Parts, Remembered, Scope, body, needs
from cloud.api.envelope import ALWAYS, ASKED, GUARDED, READ, Envelope, refusals
from cloud.api.openapi import takes
from cloud.store import keys
from cloud.store.tables import ApiKeyRow
from schemas.base import Document, Message, UtcDatetime
from schemas.errors import ErrorCode, refuse

router = APIRouter(prefix="/edge/keys", tags=["keys"])


class KeyRequest(Document):
    """A key to be made."""

    name: Annotated[
        str,
        StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$"),
        Field(examples=["dashboard"], description="For people: who uses it."),
    ]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=50)]
    ttl: Annotated[
        int | None, Field(ge=1, le=315_360_000, description="Seconds until it expires; absent: never.")
    ] = None


class KeyView(Message):
    """A key, without its secret."""

    id: Annotated[str, Field(examples=["3f9a0c1b2d4e"])]
    name: str
    scopes: list[str]
    created_at: UtcDatetime
    expires_at: UtcDatetime | None
    revoked_at: UtcDatetime | None
    used_at: Annotated[UtcDatetime | None, Field(description="To the minute.")]


class NewKey(KeyView):
    """A key just made: the only time it is shown."""

    key: Annotated[str, Field(examples=["flk_3f9a0c1b2d4e_..."])]


class KeyList(Message):
    """Every key, revoked and expired ones too."""

    keys: list[KeyView]


@router.get(
    "",
    operation_id="list_keys",
    summary="List the API keys",
    dependencies=[needs(Scope.KEYS_READ), NO_QUERY],
    responses=refusals(*GUARDED, *ASKED, *ALWAYS),
)
async def list_keys(services: Parts) -> Envelope[KeyList]:
    """Every key with its scopes and when it was last used, oldest first; never a secret."""
    async with services.database.session() as session:
        rows = await keys.listing(session)
    return Envelope[KeyList](data=KeyList(keys=[_view(row) for row in rows]))


@router.post(
    "",
    operation_id="create_key",
    summary="Make an API key",
    status_code=201,
    dependencies=[NO_QUERY],
    responses=refusals(*GUARDED, *READ, *ALWAYS),
    openapi_extra=takes(
        body=KeyRequest,
        examples={"a dashboard": {"name": "dashboard", "scopes": ["devices:read", "metrics:read"]}},
    ),
)
async def create_key(
    caller: Annotated[Caller, needs(Scope.KEYS_WRITE)],
    order: Annotated[KeyRequest, body(KeyRequest)],
    services: Parts,
) -> Envelope[NewKey]:
    """The answer shows the key, once. A key can only pass on scopes it has itself."""
    if beyond := sorted(scope for scope in order.scopes if not caller.may(scope)):
        refuse(
            ErrorCode.AUTH_SCOPE,
            f"scopes: the key {caller.key} cannot pass on {', '.join(beyond)}, which it has not itself",
            field="scopes",
        )
    now = services.now()
    expires_at = None if order.ttl is None else now + timedelta(seconds=order.ttl)
    async with services.database.session() as session:
        scopes = [scope.value for scope in dict.fromkeys(order.scopes)]
        row, secret = await keys.create(session, order.name, scopes, expires_at, now)
    made = NewKey(key=secret, **_view(row).model_dump())
    return Envelope[NewKey](data=made, message="keep the key now: it is not shown again")


@router.delete(
    "/{key}",
    operation_id="revoke_key",
    summary="Revoke an API key",
    dependencies=[needs(Scope.KEYS_WRITE), NO_QUERY],
    responses=refusals(*GUARDED, *ASKED, ErrorCode.KEY_UNKNOWN, *ALWAYS),
)
async def revoke_key(
    key: Annotated[str, Path(description="The key's id, as listed.")], services: Parts, callers: Remembered
) -> Envelope[KeyView]:
    """It is refused from now on, for good; its row stays for the record. May be repeated."""
    async with services.database.session() as session:
        row = await keys.revoke(session, key, services.now())
    callers.revoked()
    return Envelope[KeyView](data=_view(row), message=f"key {row.id} is revoked")


def _view(row: ApiKeyRow) -> KeyView:
    return KeyView(
        id=row.id,
        name=row.name,
        scopes=list(row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        used_at=row.used_at,
    )
