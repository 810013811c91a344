"""Releases made of the demo's image, and devices brought to run them."""

from __future__ import annotations

from typing import Any

from schemas.desired import Release
from tests.servers.stack import Stack, until

STORE_IS_UP = ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/health"]
COUNTING = (
    "echo $(($(cat /data/starts 2>/dev/null || echo 0) + 1)) >/data/starts;"
    " trap 'sleep {stop_takes}; exit 0' TERM; while :; do sleep 0.1 & wait $!; done"
)
"""A service that counts its starts in its volume and takes a while to stop."""


def release(name: str, *services: dict[str, Any], version: str = "1") -> dict[str, Any]:
    """Return a release."""
    return {"name": name, "version": version, "services": list(services)}


def store(image: str, name: str = "store", **fields: Any) -> dict[str, Any]:
    """Return a service that counts its starts in a volume of its own and serves HTTP."""
    check = {"type": "exec", "command": STORE_IS_UP, "interval": 0.5, "start_period": 20}
    return {
        "name": name,
        "image": image,
        "command": ["/app/store"],
        "volumes": [{"name": f"{name}-data", "path": "/data"}],
        "health": check,
        **fields,
    }


def api(image: str, **fields: Any) -> dict[str, Any]:
    """Return a service that asks `store`, once that is healthy."""
    return {
        **store(image, "api"),
        "command": ["/app/api"],
        "volumes": [],
        "depends_on": {"store": "healthy"},
        "ports": [{"container": 8080}],
        **fields,
    }


def counting(image: str, name: str, stop_takes: float, **fields: Any) -> dict[str, Any]:
    """Return a service that takes *stop_takes* seconds to stop and has no health check."""
    return {
        "name": name,
        "image": image,
        "command": ["sh", "-c", COUNTING.format(stop_takes=stop_takes)],
        "volumes": [{"name": f"{name}-data", "path": "/data"}],
        **fields,
    }


def settle(stack: Stack, device: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """See to it that *device* runs *wanted*, every service well; return its status."""
    status = stack.status(device)
    if not (_runs(stack, status, wanted) and well(status)):
        ended = stack.deploy(wanted, [device])
        assert [each["outcome"] for each in ended["devices"]] in (["committed"], ["no_change"]), ended
    return until(lambda: _well(stack, device, wanted), f"{device} to run {wanted['name']}")


def well(status: dict[str, Any]) -> bool:
    """Return whether every service of a device's status runs and is not unhealthy."""
    return all(
        each["state"] == "running" and each["health"] in {"none", "healthy"} for each in status["services"]
    )


def service_of(status: dict[str, Any], name: str) -> dict[str, Any]:
    """Return what the device reported of the service called *name*."""
    return next(each for each in status["services"] if each["name"] == name)


def _well(stack: Stack, device: str, wanted: dict[str, Any]) -> dict[str, Any] | None:
    status = stack.status(device)
    names = {each["name"] for each in status["services"]}
    return status if well(status) and names == {each["name"] for each in wanted["services"]} else None


def _runs(stack: Stack, status: dict[str, Any], wanted: dict[str, Any]) -> bool:
    told = status["reported"]
    if not status["settled"] or not told["release_id"]:
        return False
    found = stack.get(f"/edge/releases/{told['release_id']}")["release"]
    return Release.model_validate(found) == Release.model_validate(wanted)
