"""`fleet doctor`: what is wrong, and what to do about it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import httpx
import typer
from cryptography import x509
from rich.markup import escape

from cloud.cli.client import DEFAULT_DATA_DIR
from cloud.cli.exits import Exit
from cloud.cli.options import DataDir, Json
from cloud.cli.output import BAD, GOOD, OUT, UNSURE, as_json, bytes_word, coloured, table
from cloud.stack.layout import Endpoints, Layout

OLDEST_MOSQUITTO = (2, 0, 18)
_SOON = timedelta(days=14)
_MUCH_SKEW = 5.0
_LITTLE_DISK = 2 * 2**30
_DOCKER_SOCKET = Path("/var/run/docker.sock")


class Verdict(StrEnum):
    """How one check went."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


_COLOUR = {Verdict.OK: GOOD, Verdict.WARNING: UNSURE, Verdict.FAILED: BAD}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's verdict, what was seen, and what to do."""

    check: str
    verdict: Verdict
    seen: str
    advice: str = ""


def doctor(
    data_dir: DataDir = None,
    url: Annotated[str | None, typer.Option(help="The API.", envvar="FLEETLINE_URL")] = None,
    key: Annotated[str | None, typer.Option(help="The API key.", envvar="FLEETLINE_API_KEY")] = None,
    *,
    json_: Json = False,
) -> None:
    """Check this machine and the stack, and say what to do. Exit status 1 where a check failed."""
    findings = list(_examine(data_dir or DEFAULT_DATA_DIR, url, key))
    if json_:
        as_json([asdict(each) for each in findings])
    else:
        rows = (
            (
                each.check,
                coloured(each.verdict, _COLOUR[each.verdict]),
                escape(each.seen) + (f"\n[dim]{escape(each.advice)}[/]" if each.advice else ""),
            )
            for each in findings
        )
        OUT.print(table(("CHECK", "", "SEEN"), rows))
    if any(each.verdict is Verdict.FAILED for each in findings):
        raise typer.Exit(int(Exit.FAILED))


def judge_mosquitto(version: tuple[int, ...] | None) -> Finding:
    """Say whether a Mosquitto of *version* (None: not found) keeps what it acknowledges."""
    if version is None:
        return Finding(
            "mosquitto", Verdict.WARNING, "not on this machine", "run deploy/setup.sh to run a broker here"
        )
    text = ".".join(map(str, version))
    if version < OLDEST_MOSQUITTO:
        return Finding(
            "mosquitto",
            Verdict.FAILED,
            text,
            "before 2.0.18 queues stall on expired messages and shared subscriptions are lost at a restart;"
            " on Debian 12 take it from backports: deploy/setup.sh does",
        )
    return Finding("mosquitto", Verdict.OK, text)


def judge_certificate(name: str, expires: datetime, now: datetime) -> Finding:
    """Say whether a certificate lasts long enough."""
    left = expires - now
    seen = f"{name} expires {expires:%Y-%m-%d}"
    if left <= timedelta():
        return Finding("certificate", Verdict.FAILED, seen, "restart the stack: fleet down, then fleet up")
    if left < _SOON:
        return Finding("certificate", Verdict.WARNING, seen, "the next fleet up renews it")
    return Finding("certificate", Verdict.OK, seen)


def judge_disk(free: int) -> Finding:
    """Say whether *free* bytes are enough to work with."""
    seen = f"{bytes_word(free)} free"
    if free < _LITTLE_DISK:
        return Finding("disk", Verdict.WARNING, seen, "make room: images and journals need it")
    return Finding("disk", Verdict.OK, seen)


def _examine(directory: Path, url: str | None, key: str | None) -> Iterator[Finding]:
    yield judge_mosquitto(_mosquitto_version())
    yield _docker()
    here = directory if directory.exists() else Path()
    yield judge_disk(shutil.disk_usage(here).free)
    layout = Layout(directory)
    now = datetime.now(UTC)
    for name in ("broker", "cloud", "operator"):
        chain, _ = layout.certificate(name)
        if chain.exists():
            certificate = x509.load_pem_x509_certificate(chain.read_bytes())
            yield judge_certificate(name, certificate.not_valid_after_utc, now)
    endpoints = layout.read_endpoints()
    yield from _stack(endpoints, url, key, directory)


def _stack(
    endpoints: Endpoints | None, url: str | None, key: str | None, directory: Path
) -> Iterator[Finding]:
    if url is None and endpoints is None:
        yield Finding("api", Verdict.WARNING, f"no stack is up in {directory}", "start one: fleet up")
        return
    url = url or (endpoints.api_url if endpoints else "")
    key = key or (endpoints.api_key if endpoints else "")
    with httpx.Client(
        base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=10, trust_env=False
    ) as client:
        yield from _guarded("api", url, lambda: _health(client))
        yield from _guarded("devices", url, lambda: _devices(client))


def _guarded(check: str, url: str, work: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from list(work())
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        why = str(error) or type(error).__name__
        yield Finding(
            check, Verdict.FAILED, f"{url}: {why}", "see DATA_DIR/logs/cloud.log; restart with fleet up"
        )


def _health(client: httpx.Client) -> Iterator[Finding]:
    answer = client.get("/health")
    health = answer.json()["data"]
    yield Finding("api", Verdict.OK, f"version {health['version']}")
    for part, state in health["parts"].items():
        verdict = Verdict.OK if state["ok"] else Verdict.FAILED
        took = f"answered in {state['latency_ms']:.1f} ms" if state["latency_ms"] else "connected"
        yield Finding(part, verdict, state["reason"] or took)
    skew = (datetime.now(UTC) - datetime.fromisoformat(health["time"])).total_seconds()
    if abs(skew) > _MUCH_SKEW:
        seen = f"differs from the server's by {skew:.0f} s"
        yield Finding("clock", Verdict.WARNING, seen, "synchronise both (NTP)")


def _devices(client: httpx.Client) -> Iterator[Finding]:
    answer = client.get("/edge/devices", params={"limit": 500})
    answer.raise_for_status()
    devices = answer.json()["data"]["devices"]
    offline = [each["name"] or each["id"] for each in devices if each["online"] is False]
    seen = f"{len(devices)} enrolled, {len(offline)} offline"
    if offline:
        yield Finding(
            "devices", Verdict.WARNING, seen, f"look at {', '.join(offline[:5])}: fleet status NAME"
        )
    else:
        yield Finding("devices", Verdict.OK, seen)


def _mosquitto_version() -> tuple[int, ...] | None:
    binary = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if binary is None:
        return None
    said = subprocess.run([binary, "-h"], capture_output=True, text=True, check=False, timeout=10).stdout  # noqa: S603
    found = re.search(r"version (\d+)\.(\d+)\.(\d+)", said)
    return tuple(map(int, found.groups())) if found else None


def _docker() -> Finding:
    host = os.environ.get("DOCKER_HOST") or f"unix://{_DOCKER_SOCKET}"
    if not host.startswith("unix://"):
        return Finding(
            "docker", Verdict.WARNING, f"DOCKER_HOST is {host}", "not looked at: try docker version"
        )
    socket = Path(host.removeprefix("unix://"))
    if not socket.exists():
        return Finding(
            "docker",
            Verdict.WARNING,
            f"no daemon at {socket}",
            "run deploy/setup.sh to run containers here",
        )
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=10) as client:
            version = client.get("http://docker/version").json()["Version"]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        return Finding(
            "docker", Verdict.FAILED, f"the daemon does not answer: {error}", "start it: deploy/setup.sh"
        )
    return Finding("docker", Verdict.OK, version)
