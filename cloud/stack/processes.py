"""Child processes that are kept running: started, watched, started again, ended in order.

Every child carries the stack's directory in its environment, so whatever the
supervisor's own fate, `members` finds all of them again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

MARK = "FLEETLINE_STACK"
_CALM = 30.0
"""Seconds a child must have run for its next failure to count as its first."""
_LAST_WORDS = 4000


@dataclass(frozen=True, slots=True)
class Program:
    """One child: its name, command line, what is added to the environment, its log file and its folders.

    The folders are made before each start: a program that lost its own must not come up without.
    """

    name: str
    arguments: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    grace: float = 10.0
    folders: Sequence[Path] = ()


def pause_before(failures: int) -> float:
    """Return the seconds to wait before starting a child that ended *failures* times in a row."""
    return min(10.0, 0.2 * 2.0 ** max(0, failures - 1))


class Supervisor:
    """Keeps programs running until told otherwise. `on_change` hears of every new process id."""

    def __init__(self, directory: Path, tasks: asyncio.TaskGroup, on_change: Callable[[], None]) -> None:
        self._directory = directory
        self._tasks = tasks
        self._on_change = on_change
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._endings: dict[str, int] = {}

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each program that runs now."""
        return {name: each.pid for name, each in self._processes.items() if each.returncode is None}

    def endings(self, name: str) -> int:
        """Return how often *name* has ended since it was first started."""
        return self._endings.get(name, 0)

    async def start(self, program: Program) -> None:
        """Start *program* and keep it running. Raises `OSError` where it cannot be started at all."""
        await self._spawn(program)
        self._keepers[program.name] = self._tasks.create_task(self._keep(program), name=program.name)

    async def stop(self, programs: Sequence[Program]) -> None:
        """End *programs* side by side: ask, then kill after each one's grace."""
        for program in programs:
            if keeper := self._keepers.pop(program.name, None):
                keeper.cancel()
        async with asyncio.TaskGroup() as group:
            for program in programs:
                if process := self._processes.pop(program.name, None):
                    group.create_task(_end(process, program.grace))

    async def _keep(self, program: Program) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            await self._processes[program.name].wait()
            self._endings[program.name] = self.endings(program.name) + 1
            failures = 1 if time.monotonic() - began > _CALM else failures + 1
            await asyncio.sleep(pause_before(failures))
            await self._spawn(program)

    async def _spawn(self, program: Program) -> None:
        for folder in program.folders:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        environment = {**os.environ, **program.environment, MARK: str(self._directory)}
        with program.log.open("ab") as log:
            self._processes[program.name] = await asyncio.create_subprocess_exec(
                *program.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self._on_change()


async def _end(process: asyncio.subprocess.Process, grace: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), grace)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def members(directory: Path) -> list[psutil.Process]:
    """Return every process of the stack in *directory*, this one excepted."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(MARK) == str(directory):
                found.append(process)
    return found


def end_all(processes: Sequence[psutil.Process], *, grace: float) -> None:
    """Ask every process to end and kill what is left after *grace* seconds. Blocks."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=grace)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=grace)


def last_words(log: Path, lines: int = 12) -> str:
    """Return the end of *log*, for a person who asks why."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _LAST_WORDS))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:]) or "(the log is empty)"
