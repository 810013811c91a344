"""Choosing ports: what was asked for, what the last start used, or any free one."""

from __future__ import annotations

import socket

from cloud.stack.layout import HOST, MetricsKind, StackSettings


class PortTaken(Exception):  # noqa: N818 - says what is the case
    """A port that was asked for by number cannot be had."""

    def __init__(self, option: str, port: int, why: str) -> None:
        super().__init__(f"port {port} {why}; give {option} another number, or 0 for any free one")


def choose(asked: StackSettings, earlier: StackSettings | None) -> StackSettings:
    """Return *asked* with every 0 replaced, by the earlier start's port where it is still free.

    Devices remember the port they enrolled for, so a restarted stack keeps its
    ports. Raises `PortTaken`.
    """
    wanted = {
        "http_port": "--http-port",
        "mqtt_port": "--mqtt-port",
        "device_mqtt_port": "--device-mqtt-port",
    }
    if asked.metrics is MetricsKind.INFLUX:
        wanted |= {"influx_port": "--influx-port", "influx_rpc_port": "--influx-rpc-port"}
    chosen: dict[str, int] = {}
    for name, option in wanted.items():
        number = getattr(asked, name)
        if number == 0:
            before = getattr(earlier, name) if earlier else 0
            taken = {*chosen.values(), *(getattr(asked, each) for each in wanted)}
            usable = before and before not in taken and _why_not(before) is None
            chosen[name] = before if usable else _any_free(taken)
        elif number in chosen.values():
            raise PortTaken(option, number, "is asked for twice")
        elif why := _why_not(number):
            raise PortTaken(option, number, why)
        else:
            chosen[name] = number
    return asked.model_copy(update=chosen)


def _why_not(port: int) -> str | None:
    """Return why nothing can listen on *port* here, or None where it is free."""
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((HOST, port))
        except PermissionError:
            return "is for root only"
        except OSError:
            return "is in use"
    return None


def _any_free(taken: set[int]) -> int:
    while True:
        with socket.socket() as door:
            door.bind((HOST, 0))
            port: int = door.getsockname()[1]
        if port not in taken:
            return port
