"""An idle agent on Docker: memory and processor time at the default interval, with 1 and with 10 services."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from tests.servers.docker import demo_image
from tests.servers.stack import Stack, stack

_SECONDS = 60
_CALM = 20
_LIBRARIES = "import aiomqtt, docker, psutil, pydantic, sqlite3, ssl"


def main() -> None:
    """Print resident memory and share of one core."""
    with tempfile.TemporaryDirectory() as folder, demo_image() as image:
        print(f"{'bare interpreter':<44} RSS {_bare('pass'):6.1f} MB")
        print(f"{'interpreter with the libraries, no agent':<44} RSS {_bare(_LIBRARIES):6.1f} MB")
        with stack(Path(folder), "--devices", "1") as running:
            for count in (1, 10):
                found = running.deploy(_release(image, count))
                assert found["devices"][0]["outcome"] == "committed", found
                time.sleep(_CALM)
                _print(running, count)


def _print(running: Stack, count: int) -> None:
    process = psutil.Process(running.pid("gateway-01"))
    before, began = process.cpu_times(), time.monotonic()
    time.sleep(_SECONDS)
    after, took = process.cpu_times(), time.monotonic() - began
    cpu = (after.user + after.system - before.user - before.system) / took
    rss = process.memory_info().rss / 2**20
    print(
        f"{f'agent, {count} services':<44} RSS {rss:6.1f} MB (aim: under 64)   "
        f"CPU {cpu * 100:5.2f} % of a core (aim: under 1)   "
        f"{cpu * 10 * 1000:6.1f} ms per 10 s interval"
    )


def _bare(code: str) -> float:
    """Return the resident megabytes of an interpreter that has run *code*."""
    script = f"{code}\nimport psutil as p\nprint(p.Process().memory_info().rss)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return int(done.stdout) / 2**20


def _release(image: str, count: int) -> dict[str, Any]:
    services = [
        {
            "name": f"store-{number}",
            "image": image,
            "command": ["/app/store"],
            "health": {"type": "http", "port": 8080, "path": "/health", "interval": 10},
        }
        for number in range(count)
    ]
    return {"name": "idle", "version": f"1.{count}", "services": services}
