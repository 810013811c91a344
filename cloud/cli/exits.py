"""What the command's exit status tells a script."""

from __future__ import annotations

from enum import IntEnum
from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape

ERRORS = Console(stderr=True, soft_wrap=True, highlight=False)


class Exit(IntEnum):
    """The exit statuses."""

    OK = 0
    FAILED = 1
    """It was done and did not succeed: a command failed, a device did not commit."""
    USAGE = 2
    """The command line is not right, or the server refused the request as wrong."""
    UNREACHABLE = 3
    """No answer: nothing is known."""
    DENIED = 4
    """No key, a bad one, or one without the right."""
    NOT_FOUND = 5
    """No such device, command, release or key."""
    TIMED_OUT = 6
    """No final answer within the time given; it may still come."""
    INTERRUPTED = 130
    """Ctrl-C before it was done, as shells count it."""


def stop(status: Exit, code: str, message: str) -> NoReturn:
    """Print `code: message` on standard error and end with *status*."""
    ERRORS.print(f"[bold red]{escape(code)}[/]: {escape(message)}")
    raise typer.Exit(int(status))
