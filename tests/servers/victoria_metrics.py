"""A real VictoriaMetrics for tests: a second server that takes InfluxDB 2's way of writing."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.servers.mosquitto import HOST, free_ports

_START_TIMEOUT = 20.0


class VictoriaMetricsDied(Exception):  # noqa: N818 - says what happened
    """VictoriaMetrics ended, or never answered; carries its log."""


@contextmanager
def victoria_metrics(directory: Path) -> Iterator[str]:
    """Run a server with its files in *directory* and give its URL; it ends with the block."""
    directory.mkdir(parents=True, exist_ok=True)
    binary = shutil.which("victoria-metrics")
    if binary is None:
        raise VictoriaMetricsDied("victoria-metrics is not installed; run deploy/setup.sh")
    (port,) = free_ports(1)
    url, log_file = f"http://{HOST}:{port}", directory / "victoria-metrics.log"
    options = {
        "storageDataPath": directory / "data",
        "httpListenAddr": f"{HOST}:{port}",
        "retentionPeriod": "100y",
    }
    command = [binary, *(f"-{name}={value}" for name, value in options.items())]
    with log_file.open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _START_TIMEOUT
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise VictoriaMetricsDied(log_file.read_text(errors="replace"))
            time.sleep(0.02)
        yield url
    finally:
        process.kill()
        process.wait(timeout=10)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").is_success
    except httpx.TransportError:
        return False
