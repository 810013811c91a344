import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from cloud.store import enrolment
from cloud.store.database import Database
from schemas.errors import FleetError
from tests.store.conftest import NOON


async def a_token(database: Database, uses: int = 1) -> str:
    async with database.session() as session:
        _, token = await enrolment.create_token(
            session, labels={}, ttl=timedelta(hours=1), uses=uses, now=NOON
        )
    return token


async def enrol(database: Database, token: str, device: UUID, key: str = "key") -> bool:
    """Claim and admit, as a request does; return whether the device was new."""
    async with database.session() as session:
        await enrolment.claim(session, token, device, NOON)
        return await enrolment.admit(
            session, device, key=key, name="", labels={}, certificate_expires_at=NOON, now=NOON
        )


async def test_claims_of_one_device_at_once_are_one_claim(database: Database) -> None:
    token, device = await a_token(database), uuid4()

    new = await asyncio.gather(*(enrol(database, token, device) for _ in range(6)))

    assert sorted(new) == [False] * 5 + [True]


async def test_claims_of_many_devices_at_once_take_no_use_too_many(database: Database) -> None:
    token = await a_token(database, uses=3)

    done = await asyncio.gather(*(enrol(database, token, uuid4()) for _ in range(6)), return_exceptions=True)

    assert sorted(str(each.code) if isinstance(each, FleetError) else str(each) for each in done) == [
        *["True"] * 3,
        *["claim.used"] * 3,
    ]


async def test_one_id_enrolled_at_once_by_two_tokens_belongs_to_one_key(database: Database) -> None:
    tokens, device = [await a_token(database) for _ in range(4)], uuid4()

    done = await asyncio.gather(
        *(enrol(database, token, device, key=token) for token in tokens), return_exceptions=True
    )

    refused = [each for each in done if isinstance(each, FleetError)]
    assert [each.code for each in refused] == ["claim.device_taken"] * 3
    assert [each for each in done if each not in refused] == [True]


async def test_a_token_that_is_over_or_unknown_is_refused(database: Database) -> None:
    token = await a_token(database)
    for presented, at, code in (
        (token, NOON + timedelta(hours=1), "claim.expired"),
        ("x", NOON, "claim.unknown"),
    ):
        async with database.session() as session:
            with pytest.raises(FleetError) as caught:
                await enrolment.claim(session, presented, uuid4(), at)
        assert caught.value.code == code
