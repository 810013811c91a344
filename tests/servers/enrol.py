"""A device that enrols as any other, by `fleet-agent enroll`, and then runs no agent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.servers.stack import Stack


def enrol(stack: Stack, folder: Path, name: str) -> Path:
    """Enrol a device called *name* with its files in *folder*; return *folder*."""
    token = stack.post("/edge/enrolment/tokens", {"uses": 1, "ttl": 60})["token"]
    enrolled = subprocess.run(
        [
            *(sys.executable, "-m", "device", "enroll", "--data-dir", str(folder), "--name", name),
            *("--enrol-url", stack.endpoints["api_url"], "--token", token),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert enrolled.returncode == 0, enrolled.stderr
    return folder
