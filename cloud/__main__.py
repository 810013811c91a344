"""`python -m cloud serve` runs the cloud; `docs/cloud.md` lists the settings it takes."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys

from cloud.app import check, serve
from cloud.settings import Settings
from schemas.errors import FleetError


def main() -> int:
    """Run what the command line asks for; return the exit code: 0 well, 1 failed, 2 wrong settings."""
    parser = argparse.ArgumentParser(prog="python -m cloud", description=__doc__)
    parser.add_argument("what", choices=["serve"], help="serve: REST, bus, ingest and sweeps in one process")
    parser.parse_args()
    try:
        settings = Settings.from_environment(os.environ)
        check(settings)
    except FleetError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("cloud.bus.wire").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    asyncio.run(_serve(settings))
    return 0


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, stop)


if __name__ == "__main__":
    sys.exit(main())
