"""Choosing ports: what was asked for, what the last start used, or any free one."""

from __future__ import annotations

import socket

from cloud.stack.layout import HOST, MetricsKind, StackSettings


class PortTaken(Exception):  # noqa: N818 - says what is the case
    """A port that was asked for by number is in use."""

    def __init__(self, option: str, port: int) -> None:
        super().__init__(f"port {port} is in use; give {option} another number, or 0 for any free one")


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
            chosen[name] = before if before and _is_free(before) else _any_free(set(chosen.values()))
        elif _is_free(number):
            chosen[name] = number
        else:
            raise PortTaken(option, number)
    return asked.model_copy(update=chosen)


def _is_free(port: int) -> bool:
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((HOST, port))
        except OSError:
            return False
    return True


def _any_free(taken: set[int]) -> int:
    while True:
        with socket.socket() as door:
            door.bind((HOST, 0))
            port: int = door.getsockname()[1]
        if port not in taken:
            return port
