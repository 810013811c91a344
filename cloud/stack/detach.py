"""Starting a stack that outlives the command that started it, and ending one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cloud.stack.layout import EngineKind, Layout, StackSettings
from cloud.stack.processes import MARK, end_all, last_words, members
from cloud.stack.progress import Report, StackFailed, Step, StepState

_PURGE_PATIENCE = 120


def start(directory: Path, settings: StackSettings, report: Report) -> subprocess.Popen[bytes]:
    """Start a detached stack and return its supervisor when all is ready. Raises `StackFailed`."""
    layout = Layout(directory)
    log = layout.log("stack")
    try:
        if layout.foreign:
            raise StackFailed("files", f"{layout.directory} holds other things; choose a new --data-dir")
        layout.make()
        output = log.open("ab")
    except OSError as error:
        raise StackFailed("files", f"{error}; choose another --data-dir") from error
    reading, writing = os.pipe()
    with output:
        process = subprocess.Popen(  # noqa: S603 - our own module
            [
                *(sys.executable, "-m", "cloud.stack"),
                *(str(layout.directory), settings.model_dump_json(), str(writing)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, MARK: str(layout.directory)},
            pass_fds=[writing],
            start_new_session=True,
        )
    os.close(writing)
    try:
        return _await_ready(process, reading, report, log)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise


def _await_ready(
    process: subprocess.Popen[bytes], reading: int, report: Report, log: Path
) -> subprocess.Popen[bytes]:
    with os.fdopen(reading) as progress:
        for line in progress:
            word = json.loads(line)
            if "ready" in word:
                return process
            if "failed" in word:
                process.wait()
                raise StackFailed(word["failed"], word["why"])
            report(Step(word["part"], StepState(word["state"]), word["detail"]))
    process.wait()
    raise StackFailed("stack", f"the supervisor ended; {log}:\n{last_words(log)}")


def stop(directory: Path) -> int:
    """End every process of the stack in *directory*, in order; return how many there were."""
    layout = Layout(directory)
    processes = members(layout.directory)
    supervisors = [each for each in processes if _is_supervisor(each.cmdline())]
    end_all(supervisors, grace=45)
    end_all(members(layout.directory), grace=10)
    layout.endpoints.unlink(missing_ok=True)
    return len(processes)


def purge(directory: Path, *, volumes: bool) -> list[str]:
    """Remove what the stack's devices made in Docker; return what the agents said.

    Raises `StackFailed` where an agent could not clean up.
    """
    layout = Layout(directory)
    settings = layout.read_settings() or StackSettings()
    if settings.engine is EngineKind.MEMORY:
        return []
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda folder: _purge_one(folder, volumes=volumes), layout.devices()))


def _purge_one(folder: Path, *, volumes: bool) -> str:
    arguments = [sys.executable, "-m", "device", "purge", "--data-dir", str(folder)]
    if volumes:
        arguments.append("--volumes")
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            arguments, capture_output=True, text=True, timeout=_PURGE_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise StackFailed("devices", f"cleaning up after {folder} took over {_PURGE_PATIENCE} s") from error
    if done.returncode != 0:
        raise StackFailed("devices", f"cleaning up after {folder}: {done.stderr.strip()}")
    return done.stdout.strip()


def _is_supervisor(command: Sequence[str]) -> bool:
    return "cloud.stack" in command
