"""Reports: the newest state, once, and again with each connection until it is confirmed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from device.deploy.reports import KeeperState
from device.report import Reporter
from schemas import topics
from schemas.config import Config
from schemas.device import DeviceFacts
from schemas.errors import ErrorCode, problem
from schemas.reading import MAX_PAYLOAD
from schemas.reported import Phase, Reported, ServiceReport, ServiceState
from tests.agent.bench import DEVICE, Bench, bench, now

TOPIC = topics.Reported(DEVICE)
STATE = KeeperState(generation=1, phase=Phase.STAGING)


@pytest.fixture
async def device(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as ready:
        yield ready


@asynccontextmanager
async def reporting(device: Bench) -> AsyncIterator[Reporter]:
    reporter = Reporter(DEVICE, link=device.line, journal=device.journal, problems=(), now=now)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(reporter.run())
        yield reporter
        task.cancel()


def reports(device: Bench) -> list[Reported]:
    return device.line.of(TOPIC, Reported)


async def test_a_change_is_reported_with_a_growing_revision(device: Bench) -> None:
    async with reporting(device) as reporter:
        reporter.keeper_changed(STATE)
        await device.line.until(lambda: any(each.generation == 1 for each in reports(device)))
        reporter.keeper_changed(replace(STATE, phase=Phase.DONE))
        await device.line.until(lambda: reports(device)[-1].phase is Phase.DONE)

    revisions = [each.revision for each in reports(device)]
    assert revisions == sorted(set(revisions))


async def test_many_changes_at_once_make_one_report_of_the_newest(device: Bench) -> None:
    async with reporting(device) as reporter:
        await device.line.until(lambda: len(reports(device)) == 1)
        for generation in range(1, 50):
            reporter.keeper_changed(replace(STATE, generation=generation))
        await device.line.until(lambda: reports(device)[-1].generation == 49)

    assert len(reports(device)) == 2


async def test_the_same_content_is_sent_again_only_after_a_new_connection(device: Bench) -> None:
    async with reporting(device) as reporter:
        reporter.keeper_changed(STATE)
        await device.line.until(lambda: len(reports(device)) == 1)
        reporter.keeper_changed(STATE)
        reporter.config_changed()
        await device.line.join()
        await device.line.until(lambda: len(reports(device)) == 2)

    first, second = reports(device)
    assert second.revision > first.revision
    assert first.generation == second.generation == 1


async def test_what_changes_without_a_connection_is_reported_with_the_next(device: Bench) -> None:
    async with reporting(device) as reporter:
        await device.line.until(lambda: len(reports(device)) == 1)
        await device.line.cut()
        reporter.keeper_changed(STATE)
        reporter.facts_changed(DeviceFacts(hostname="gateway"))
        await device.journal.accept_config(Config(version=4), now())
        reporter.config_changed()
        await device.line.join()
        await device.line.until(lambda: reports(device)[-1].generation == 1)

    last = reports(device)[-1]
    assert (last.facts.hostname, last.config_version) == ("gateway", 4)


async def test_a_report_that_is_too_long_has_its_texts_cut_rather_than_be_lost(device: Bench) -> None:
    error = problem(ErrorCode.HEALTH_FAILED, "\x01" * 2000)
    services = tuple(
        ServiceReport(name=f"s{number}", state=ServiceState.FAILED, error=error) for number in range(100)
    )
    async with reporting(device) as reporter:
        reporter.keeper_changed(replace(STATE, services=services, problems=(error,) * 100))
        await device.line.until(
            lambda: reports(device)[-1:] != [] and len(reports(device)[-1].services) == 100
        )

    assert all(len(payload) <= MAX_PAYLOAD for _, payload in device.line.sent)
