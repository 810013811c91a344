"""A whole local stack, started as a user does: `fleet up --detach`, ended with `fleet down`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx

_UP_PATIENCE = 180
_Found = TypeVar("_Found")


class StackDown(Exception):  # noqa: N818 - says what happened
    """The stack did not come up; carries what `fleet up` said and the ends of its logs."""


def fleet(
    *arguments: str, timeout: float = 60, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the `fleet` command with *arguments* and return how it ended."""
    return subprocess.run(
        [sys.executable, "-m", "cloud.cli", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **(environment or {})},
    )


def until(look: Callable[[], _Found | None], what: str, *, patience: float = 30) -> _Found:
    """Return what *look* finds, looking again and again; fail with *what* was awaited when patience ends."""
    deadline = time.monotonic() + patience
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {patience} s for {what}; last look: {found!r}"
        time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Stack:
    """A running stack."""

    directory: Path

    @property
    def endpoints(self) -> dict[str, Any]:
        """What endpoints.json says now (process ids change when a process is started again)."""
        found: dict[str, Any] = json.loads((self.directory / "endpoints.json").read_text())
        return found

    @property
    def devices(self) -> list[str]:
        """The ids of the stack's devices, in the order of their names."""
        return list(self.endpoints["device_ids"])

    def pid(self, name: str) -> int:
        """Return the process id of `broker`, `cloud`, `gateway-01`, ..."""
        return int(self.endpoints["pids"][name])

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Call the API with the administrator's key."""
        endpoints = self.endpoints
        headers = {"Authorization": f"Bearer {endpoints['api_key']}"} | options.pop("headers", {})
        return httpx.request(
            method, f"{endpoints['api_url']}{path}", headers=headers, timeout=90, trust_env=False, **options
        )

    def get(self, path: str, **options: Any) -> Any:
        """Return the data at *path*."""
        answer = self.call("GET", path, **options)
        assert answer.is_success, answer.text
        return answer.json()["data"]

    def post(self, path: str, body: Any, **options: Any) -> Any:
        """Send *body* and return the data of the answer."""
        answer = self.call("POST", path, json=body, **options)
        assert answer.is_success, answer.text
        return answer.json()["data"]

    def status(self, device: str) -> dict[str, Any]:
        """Return everything the cloud knows of *device*."""
        found: dict[str, Any] = self.get(f"/edge/devices/{device}/status")
        return found

    def deploy(
        self, release: dict[str, Any], devices: list[str] | None = None, wait: float = 60
    ) -> dict[str, Any]:
        """Deploy *release* and return the deployment once every device has ended."""
        order = {"release": release, "target": {"devices": devices or self.devices}}
        made = self.post("/edge/deploy", order)
        found: dict[str, Any] = self.get(f"/edge/deployments/{made['deployment_id']}", params={"wait": wait})
        return found

    def command(self, device: str, name: str, wait: float = 30, **arguments: Any) -> dict[str, Any]:
        """Order a command and return its row, final if it became so within *wait* seconds."""
        body = {"name": name, "arguments": arguments}
        row: dict[str, Any] = self.post(f"/edge/devices/{device}/commands", body, params={"wait": wait})
        return row

    def mqtt(self) -> list[str]:
        """Return the options of mosquitto_pub and mosquitto_sub for the operator."""
        at = self.endpoints
        return [
            *("-h", at["mqtt_host"], "-p", str(at["mqtt_port"]), "--cafile", at["ca_file"]),
            *("--cert", at["operator_cert"], "--key", at["operator_key"]),
        ]

    def log(self, name: str) -> str:
        """Return what one process has said."""
        path = self.directory / "logs" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""


@contextmanager
def stack(directory: Path, *options: str) -> Iterator[Stack]:
    """Run a stack in *directory* with `fleet up` options; it ends with the block, however that ends."""
    data = directory / f"stack-{uuid4().hex[:8]}"
    ports = ("--http-port", "0", "--mqtt-port", "0")
    try:
        began = fleet("up", "--detach", "--data-dir", str(data), *ports, *options, timeout=_UP_PATIENCE)
        if began.returncode != 0:
            raise StackDown(f"{began.stdout}\n{began.stderr}\n{_logs(data)}")
        yield Stack(data)
    finally:
        ended = fleet("down", "--purge", "--data-dir", str(data), timeout=_UP_PATIENCE)
    assert ended.returncode == 0, ended.stderr


def _logs(directory: Path) -> str:
    return "\n".join(
        f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-20:])
        for path in sorted((directory / "logs").glob("*.log"))
    )
