"""What Docker itself says of a device's containers, and what happened to them."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.servers.docker import docker

LABEL = "io.fleetline.device"


@dataclass(frozen=True, slots=True)
class Box:
    """One container of a device."""

    id: str
    service: str
    running: bool
    health: str
    started_at: str
    env: frozenset[str]

    @property
    def well(self) -> bool:
        return self.running and self.health in {"", "healthy"}


def boxes(device: str) -> dict[str, Box]:
    """Return the containers of *device* by service, stopped ones too."""
    ids = docker("ps", "-aq", "--no-trunc", "--filter", f"label={LABEL}={device}").split()
    found: dict[str, Box] = {}
    for container in ids:
        seen = subprocess.run(["docker", "inspect", container], capture_output=True, text=True, check=False)
        if seen.returncode == 0:  # else it went between the two questions
            box = _box(json.loads(seen.stdout)[0])
            found[box.service] = box
    return found


def _box(seen: dict[str, Any]) -> Box:
    state = seen["State"]
    return Box(
        id=seen["Id"],
        service=seen["Config"]["Labels"]["io.fleetline.service"],
        running=state["Status"] == "running",
        health=state.get("Health", {}).get("Status", ""),
        started_at=state["StartedAt"],
        env=frozenset(seen["Config"]["Env"]),
    )


def networks(device: str) -> list[str]:
    """Return the networks of *device*."""
    return docker("network", "ls", "-q", "--filter", f"label={LABEL}={device}").split()


def volumes(device: str) -> list[str]:
    """Return the volumes of *device*."""
    return docker("volume", "ls", "-q", "--filter", f"label={LABEL}={device}").split()


def starts_in_volume(box: Box) -> int:
    """Return how often the demo's store, or a `COUNTING` service, says it was started."""
    return int(docker("exec", box.id, "cat", "/data/starts"))


@dataclass(frozen=True, slots=True)
class Happening:
    """One event of Docker's: `start`, `die`, `health_status: healthy`, ... and when, in nanoseconds."""

    action: str
    service: str
    at: int


def history(device: str, since: float) -> list[Happening]:
    """Return what happened to the containers of *device* since that moment (seconds since 1970)."""
    lines = docker(
        "events",
        *("--since", f"{since:.6f}", "--until", f"{time.time():.6f}"),
        *("--filter", "type=container", "--filter", f"label={LABEL}={device}", "--format", "{{json .}}"),
    ).splitlines()
    return [_happening(line) for line in lines]


def count(happened: list[Happening], action: str, service: str) -> int:
    """Return how often *action* happened to *service*."""
    return sum(each.action == action and each.service == service for each in happened)


@contextmanager
def watching(device: str) -> Iterator[Iterator[Happening]]:
    """Yield what happens to the containers of *device*, from now on."""
    since = f"{time.time():.6f}"
    process = subprocess.Popen(
        [
            *("docker", "events", "--since", since, "--filter", "type=container"),
            *("--filter", f"label={LABEL}={device}", "--format", "{{json .}}"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield (_happening(line) for line in process.stdout)
    finally:
        process.kill()
        process.communicate()


def _happening(line: str) -> Happening:
    event = json.loads(line)
    attributes = event["Actor"]["Attributes"]
    return Happening(event["Action"], attributes.get("io.fleetline.service", ""), event["timeNano"])
