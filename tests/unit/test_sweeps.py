"""Chores: done again and again, whatever happened the last time."""

import asyncio
from random import Random

import pytest

from cloud.sweeps import Chore, keep_doing
from schemas.errors import ErrorCode, FleetError, problem

OUTAGE = FleetError(problem(ErrorCode.STORE_UNREACHABLE, "the database does not answer"))


@pytest.mark.parametrize("trouble", [OUTAGE, ValueError("a row that cannot be read")])
async def test_a_chore_is_done_again_after_trouble(trouble: Exception) -> None:
    done = asyncio.Event()
    rounds = 0

    async def do() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            raise trouble
        done.set()

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        keeper = tasks.create_task(keep_doing(Chore("count", 0.001, do), Random(1)))
        await done.wait()
        keeper.cancel()
