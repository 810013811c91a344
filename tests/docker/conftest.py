"""Engines for the contract suite; whatever a test leaves is removed after it."""

from collections.abc import AsyncIterator

import pytest

from tests.docker.kits import Kit, docker_kit, memory_kit


async def _tidy(kit: Kit) -> None:
    for engine in (kit.engine, kit.other):
        await engine.purge(volumes=True)
        await engine.close()


@pytest.fixture(params=["memory", "docker"])
async def kit(request: pytest.FixtureRequest) -> AsyncIterator[Kit]:
    made = memory_kit() if request.param == "memory" else docker_kit(request.getfixturevalue("demo_image"))
    yield made
    await _tidy(made)


@pytest.fixture
async def on_docker(demo_image: str) -> AsyncIterator[Kit]:
    made = docker_kit(demo_image)
    yield made
    await _tidy(made)
