"""Deploying one cached service until healthy, beside a plain `docker run` of the same, taken in turns."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

from benchmarks._report import milliseconds
from tests.servers.docker import demo_image
from tests.servers.stack import Stack, stack

_ROUNDS = 7
_INTERVAL = 0.5
_CHECK = ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/health"]
_PATIENCE = 60


def main() -> None:
    """Print both times and their difference."""
    ours: list[float] = []
    plain: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        demo_image() as image,
        stack(Path(folder), "--devices", "1") as running,
    ):
        for number in range(_ROUNDS + 1):
            took, base = _deploy(running, image, number), _docker_run(image)
            if number:
                ours.append(took)
                plain.append(base)
    milliseconds("deploy of one cached service to healthy", ours)
    milliseconds("docker run of the same to healthy", plain)
    extra = median(ours) - median(plain)
    print(f"{'difference of the medians':<44} {extra:+.3f} s   (aim: under +0.5)")


def _deploy(running: Stack, image: str, number: int) -> float:
    """Return the seconds from the order until the device says that the fresh service is healthy."""
    device = running.devices[0]
    running.deploy({"name": "one", "version": f"{number}.0", "services": []})
    service: dict[str, Any] = {
        "name": "store",
        "image": image,
        "command": ["/app/store"],
        "health": {"type": "exec", "command": _CHECK, "interval": _INTERVAL, "start_period": 5},
    }
    release = {"name": "one", "version": f"{number}.1", "services": [service]}
    began = time.perf_counter()
    running.post("/edge/deploy", {"release": release, "target": {"devices": [device]}})
    while not [each for each in running.status(device)["services"] if each["health"] == "healthy"]:
        assert time.perf_counter() - began < _PATIENCE, "never healthy"
        time.sleep(0.02)
    return time.perf_counter() - began


def _docker_run(image: str) -> float:
    """Return the seconds from `docker run` until Docker says healthy."""
    name = f"bench-{uuid4().hex[:8]}"
    command = [
        *("docker", "run", "-d", "--name", name, "--health-cmd", " ".join(_CHECK)),
        *("--health-interval", f"{_INTERVAL}s", "--health-start-period", "5s", image, "/app/store"),
    ]
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    try:
        while _health(name) != "healthy":
            assert time.perf_counter() - began < _PATIENCE, "never healthy"
            time.sleep(0.02)
        return time.perf_counter() - began
    finally:
        subprocess.run(["docker", "rm", "-f", "-v", name], check=True, capture_output=True)


def _health(name: str) -> str:
    done = subprocess.run(
        ["docker", "inspect", "-f", "{{.State.Health.Status}}", name],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()
