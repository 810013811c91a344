"""What the Docker Engine API answers, read into our values. Fields that are absent never raise."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from device.engine import names
from device.engine.protocol import (
    Container,
    ContainerState,
    ContainerStats,
    EngineEvent,
    EngineEventKind,
    EngineInfo,
)
from schemas.reported import Health, PublishedPort

Json: TypeAlias = dict[str, Any]

_NANOSECONDS = 1_000_000_000
_STATUS = re.compile(r"^(Up|Exited \((-?\d+)\)) (.+?)(?: ago)?(?: \(([^)]*)\))?$")
_HEALTH = {
    "healthy": Health.HEALTHY,
    "unhealthy": Health.UNHEALTHY,
    "starting": Health.STARTING,
    "health: starting": Health.STARTING,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What only an inspection tells of a container."""

    image: str
    running: bool
    started_at: datetime | None
    finished_at: datetime | None
    exit_code: int | None
    oom_killed: bool
    memory_limit: int | None
    address: str
    """On the device's network; empty while it does not run."""


def facts(inspected: Json, network: str) -> Facts:
    """Return what an inspection says that a listing does not."""
    state = _part(inspected, "State")
    over = state.get("Status") in {"exited", "dead"}
    endpoint = _part(_part(_part(inspected, "NetworkSettings"), "Networks"), network)
    return Facts(
        image=str(_part(inspected, "Config").get("Image", "")),
        running=bool(state.get("Running")),
        started_at=moment(state.get("StartedAt")),
        finished_at=moment(state.get("FinishedAt")) if over else None,
        exit_code=int(state.get("ExitCode") or 0) if over else None,
        oom_killed=bool(state.get("OOMKilled")) and over,
        memory_limit=_part(inspected, "HostConfig").get("Memory") or None,
        address=str(endpoint.get("IPAddress") or ""),
    )


def still_true(known: Facts, listed: Json, now: datetime) -> bool:
    """Return whether *known* was read in the run, or after the end, that *listed* shows.

    A listing tells the age only in words, such as "Up 2 minutes": they are
    compared with what the engine would say of the times we know.
    """
    status = _STATUS.match(str(listed.get("Status", "")))
    if status is None:
        return False
    running = status[1] == "Up"
    since = known.started_at if running else known.finished_at
    code = None if status[2] is None else int(status[2])
    if since is None or known.exit_code != code:
        return False
    age = (now - since).total_seconds()
    return status[3].lower() in {in_words(age + drift) for drift in (-2, -1, 0, 1, 2)}


def in_words(seconds: float) -> str:
    """Return an age as the engine puts it (docker/go-units `HumanDuration`), in lower case."""
    whole = int(seconds)
    minutes = int(seconds / 60)
    hours = int(seconds / 3600 + 0.5)
    choices = (
        (whole < 1, "less than a second"),
        (whole == 1, "1 second"),
        (whole < 60, f"{whole} seconds"),  # noqa: PLR2004 - go-units' own steps, as below
        (minutes == 1, "about a minute"),
        (minutes < 60, f"{minutes} minutes"),  # noqa: PLR2004
        (hours == 1, "about an hour"),
        (hours < 48, f"{hours} hours"),  # noqa: PLR2004
        (hours < 24 * 7 * 2, f"{hours // 24} days"),
        (hours < 24 * 30 * 2, f"{hours // 24 // 7} weeks"),
        (hours < 24 * 365 * 2, f"{hours // 24 // 30} months"),
    )
    return next((words for fits, words in choices if fits), f"{hours // 24 // 365} years")


def container(listed: Json, known: Facts) -> Container:
    """Return a container from its entry in a listing and what is known besides.

    Docker tells of an end before its own listing shows it (some 50 ms), so an inspection that says so wins.
    """
    labels = _part(listed, "Labels")
    state = _state(str(listed.get("State", "")))
    behind = state is ContainerState.RUNNING and known.exit_code is not None
    return Container(
        id=str(listed.get("Id", "")),
        name=name(listed),
        service=labels.get(names.SERVICE, ""),
        image=known.image,
        image_id=str(listed.get("ImageID", "")),
        fingerprint=labels.get(names.FINGERPRINT, ""),
        generation=int(labels.get(names.GENERATION) or 0),
        state=ContainerState.EXITED if behind else state,
        health=Health.NONE if behind else _health(str(listed.get("Status", ""))),
        created_at=datetime.fromtimestamp(listed.get("Created") or 0, UTC),
        started_at=known.started_at,
        finished_at=known.finished_at,
        exit_code=known.exit_code,
        oom_killed=known.oom_killed,
        ports=tuple(_ports(listed.get("Ports") or [])),
    )


def stats(raw: Json, known: Facts) -> ContainerStats | None:
    """Return counters; None where the container does not run."""
    at = moment(raw.get("read"))
    if at is None:
        return None
    memory = _part(raw, "memory_stats")
    pages = _part(memory, "stats")
    # As `docker stats` does: cgroup v1 names it total_inactive_file, v2 inactive_file.
    cache = pages.get("total_inactive_file") or pages.get("inactive_file") or 0
    networks = _part(raw, "networks").values()
    read, written = _block_bytes(raw)
    return ContainerStats(
        at=at,
        cpu_seconds=(_part(_part(raw, "cpu_stats"), "cpu_usage").get("total_usage") or 0) / _NANOSECONDS,
        memory_used_bytes=max(0, int(memory.get("usage") or 0) - int(cache)),
        memory_limit_bytes=known.memory_limit,
        net_received_bytes=sum(each.get("rx_bytes", 0) for each in networks),
        net_sent_bytes=sum(each.get("tx_bytes", 0) for each in networks),
        block_read_bytes=read,
        block_written_bytes=written,
        pids=_part(raw, "pids_stats").get("current") or 0,
    )


def event(raw: Json) -> EngineEvent:
    """Return one event of the engine's stream."""
    actor = _part(raw, "Actor")
    attributes = _part(actor, "Attributes")
    match str(raw.get("Action", "")).partition(":")[0]:
        case "start":
            kind = EngineEventKind.STARTED
        case "die":
            kind = EngineEventKind.DIED
        case "destroy":
            kind = EngineEventKind.REMOVED
        case "health_status":
            kind = EngineEventKind.HEALTH
        case _:
            kind = EngineEventKind.OTHER
    code = str(attributes.get("exitCode", ""))
    return EngineEvent(
        kind=kind,
        at=datetime.fromtimestamp((raw.get("timeNano") or 0) / _NANOSECONDS, UTC),
        container=str(actor.get("ID", "")),
        service=attributes.get(names.SERVICE, ""),
        exit_code=int(code) if kind is EngineEventKind.DIED and code.lstrip("-").isdigit() else None,
    )


def info(raw: Json) -> EngineInfo:
    """Return what the engine says of itself and its host."""
    details = {
        "storage_driver": raw.get("Driver"),
        "cgroup_version": raw.get("CgroupVersion"),
        "root": raw.get("DockerRootDir"),
        "operating_system": raw.get("OperatingSystem"),
        "kernel": raw.get("KernelVersion"),
        "containers_running": raw.get("ContainersRunning"),
        "images": raw.get("Images"),
        "warnings": raw.get("Warnings") or [],
    }
    return EngineInfo("docker", str(raw.get("ServerVersion", "")), str(raw.get("Architecture", "")), details)


def without_environment(inspected: Json) -> Json:
    """Return an inspection without the container's environment, which may hold secrets."""
    config = {key: value for key, value in _part(inspected, "Config").items() if key != "Env"}
    return {**inspected, "Config": config}


def has_healthcheck(image: Json) -> bool:
    """Return whether an inspected image brings a health check of its own."""
    test = _part(_part(image, "Config"), "Healthcheck").get("Test") or ["NONE"]
    return bool(test[0] != "NONE")


def name(listed: Json) -> str:
    """Return the name of a container in a listing."""
    return str(next(iter(listed.get("Names") or [""]))).lstrip("/")


def split_image(image: str) -> tuple[str, str]:
    """Return name and tag, or name and digest, of *image*; a digest wins over a tag."""
    repository, _, digest = image.partition("@")
    path, colon, tag = repository.rpartition(":")
    tagged = bool(colon) and "/" not in tag
    return (path if tagged else repository), digest or (tag if tagged else "latest")


def layer(word: Json) -> dict[str, tuple[int, int]]:
    """Return the bytes done and in all of the layer that a pull's *word* is about, by its id."""
    detail = _part(word, "progressDetail")
    if word.get("status") != "Downloading" or not detail.get("total"):
        return {}
    return {str(word.get("id", "")): (detail.get("current") or 0, detail["total"])}


def line(raw: bytes) -> str:
    """Return one line of a log as text."""
    return raw.decode(errors="replace").removesuffix("\r")


def moment(text: object) -> datetime | None:
    """Return an engine's time; None for the zero time, which means never."""
    if not isinstance(text, str) or text.startswith("0001-"):
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return None


def _state(word: str) -> ContainerState:
    match word:
        case "running" | "paused" | "restarting":
            return ContainerState.RUNNING
        case "created":
            return ContainerState.CREATED
        case _:
            return ContainerState.EXITED


def _health(status: str) -> Health:
    found = _STATUS.match(status)
    return _HEALTH.get(found[4] or "", Health.NONE) if found and found[1] == "Up" else Health.NONE


def _ports(listed: list[Json]) -> list[PublishedPort]:
    return [
        PublishedPort(
            container=each.get("PrivatePort", 0),
            host=each["PublicPort"],
            address=each.get("IP", ""),
            protocol=each.get("Type", "tcp"),
        )
        for each in sorted(listed, key=lambda each: (each.get("PrivatePort", 0), each.get("IP", "")))
        if each.get("PublicPort")
    ]


def _block_bytes(raw: Json) -> tuple[int, int]:
    entries = _part(raw, "blkio_stats").get("io_service_bytes_recursive") or []
    sums = {"read": 0, "write": 0}
    for entry in entries:
        word = str(entry.get("op", "")).lower()
        if word in sums:
            sums[word] += entry.get("value", 0)
    return sums["read"], sums["write"]


def _part(raw: Json, key: str) -> Json:
    found = raw.get(key)
    return found if isinstance(found, dict) else {}
