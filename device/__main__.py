"""`fleet-agent`: run the agent, enrol a device, look at its state, remove what it made."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from enum import IntEnum
from typing import Any

from device import VERSION, identity
from device.agent_log import configure
from device.lifecycle import AlreadyRuns, only_one, purge, run_agent, status, wait_for_identity
from device.settings import EngineKind, Given, Settings, settings_from
from schemas.config import LogLevel
from schemas.errors import ErrorCode, FleetError, problem

_STOP_WITHIN = 2.5
"""Seconds an orderly stop may take; a thread in a TLS handshake cannot be interrupted otherwise."""


class Exit(IntEnum):
    """Exit codes; docs/device.md."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_ENROLLED = 3
    ALREADY_RUNS = 4


def run(arguments: Sequence[str] | None = None) -> None:
    """Carry out the command line and exit."""
    sys.exit(main(arguments))


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the command line and return the exit code. Errors go to stderr as `code: message`."""
    chosen = vars(_parser().parse_args(arguments))
    command = chosen.pop("command")
    if command == "version":
        print(f"fleet-agent {VERSION}")  # noqa: T201 - this is the answer
        return Exit.DONE
    try:
        known = Given.__dataclass_fields__
        settings = settings_from(Given(**{key: chosen[key] for key in chosen if key in known}), os.environ)
    except FleetError as error:
        return _fail(error, Exit.USAGE)
    try:
        return _carry_out(command, settings, chosen)
    except identity.NotEnrolled as error:
        return _fail(error, Exit.NOT_ENROLLED)
    except AlreadyRuns as error:
        return _fail(error, Exit.ALREADY_RUNS)
    except FleetError as error:
        return _fail(error, Exit.FAILED)


def _carry_out(command: str, settings: Settings, chosen: dict[str, Any]) -> int:
    match command:
        case "status":
            found = asyncio.run(status(settings.data_dir))
            print(json.dumps(found, indent=2) if chosen["json"] else _readable(found))  # noqa: T201
            if found["device"] is None:
                text = f"{settings.data_dir} holds no identity"
                return _fail(FleetError(problem(ErrorCode.DEVICE_UNKNOWN, text)), Exit.NOT_ENROLLED)
            return Exit.DONE
        case "purge":
            with only_one(settings.data_dir):
                kind = EngineKind(chosen["engine"]) if chosen["engine"] else None
                for name in asyncio.run(purge(settings.data_dir, kind, volumes=chosen["volumes"])):
                    print(name)  # noqa: T201
                if chosen["identity"]:
                    identity.forget(settings.data_dir)
        case "enroll" | "enrol":
            configure(settings.log_level)
            with only_one(settings.data_dir):
                _until_stopped(lambda stop: wait_for_identity(settings, stop))
        case _:
            recent = configure(settings.log_level)
            with only_one(settings.data_dir):
                _until_stopped(lambda stop: run_agent(settings, recent, stop))
    return Exit.DONE


def _until_stopped(work: Callable[[asyncio.Event], Awaitable[object]]) -> None:
    asyncio.run(_with_signals(work))


async def _with_signals(work: Callable[[asyncio.Event], Awaitable[object]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        stop.set()
        guard = threading.Timer(_STOP_WITHIN, os._exit, args=(Exit.DONE,))
        guard.daemon = True
        guard.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await work(stop)


def _readable(found: dict[str, Any]) -> str:
    return "\n".join(f"{key.replace('_', ' '):<22} {_plain(value)}" for key, value in found.items())


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items()) or "-"
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "-"
    return str(value)


def _fail(error: FleetError, code: Exit) -> int:
    print(error, file=sys.stderr)  # noqa: T201 - the form people and scripts read
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fleet-agent", description="The agent of a Fleetline device.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    files = argparse.ArgumentParser(add_help=False)
    files.add_argument("--data-dir", metavar="DIR", help="where the agent keeps its files")
    engine = argparse.ArgumentParser(add_help=False)
    engine.add_argument(
        "--engine",
        choices=[each.value for each in EngineKind],
        help="what containers run on; default: docker",
    )
    claim = argparse.ArgumentParser(add_help=False)
    claim.add_argument("--enrol-url", metavar="URL", help="the cloud's REST interface; ends with /api/v1")
    claim.add_argument("--token", help="an enrolment token")
    claim.add_argument("--token-file", metavar="FILE", help="a file that holds it: a command line is visible")
    claim.add_argument("--name", help="what people call the device; default: the host's name")
    claim.add_argument("--label", action="append", metavar="KEY=VALUE", help="may be given more than once")
    claim.add_argument("--ca-file", metavar="FILE", help="what an https address is verified against")
    claim.add_argument("--log-level", choices=[each.value for each in LogLevel], help="default: info")
    commands.add_parser(
        "run", parents=[files, engine, claim], help="be the agent; enrols first where needed"
    ).add_argument("--keepalive", metavar="SECONDS", help="between signs of life to the broker; default: 30")
    commands.add_parser("enroll", aliases=["enrol"], parents=[files, claim], help="obtain a certificate")
    shown = commands.add_parser("status", parents=[files], help="what this device's files say")
    shown.add_argument("--json", action="store_true", help="for programs")
    gone = commands.add_parser(
        "purge", parents=[files, engine], help="remove the device's containers and networks"
    )
    gone.add_argument("--volumes", action="store_true", help="its named volumes too: data is lost")
    gone.add_argument("--identity", action="store_true", help="its key and certificate too")
    commands.add_parser("version", help="print the version")
    return parser


if __name__ == "__main__":
    run()
