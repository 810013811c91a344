"""The supervisor of a detached stack: `python -m cloud.stack DIR SETTINGS_JSON PROGRESS_FD`.

Steps go to the progress pipe as JSON lines; a last line `{"ready": true}` or
`{"failed": part, "why": text}` ends it. Where nobody reads the pipe any more
before the stack is ready, the stack ends: nobody waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path

from cloud.stack.layout import StackSettings
from cloud.stack.progress import StackFailed, Step
from cloud.stack.up import run, stop_on_signals


async def _main(directory: Path, settings: StackSettings, progress: int) -> int:
    stopping = asyncio.Event()
    stop_on_signals(stopping)
    pipe = os.fdopen(progress, "w", buffering=1)

    def tell(**line: object) -> None:
        if not pipe.closed:
            try:
                pipe.write(json.dumps(line) + "\n")
            except BrokenPipeError:
                stopping.set()

    def report(step: Step) -> None:
        tell(part=step.part, state=step.state, detail=step.detail)

    def ready() -> None:
        tell(ready=True)
        with contextlib.suppress(BrokenPipeError):
            pipe.close()

    failures: list[StackFailed] = []
    try:
        await run(directory, settings, report, stopping, ready)
    except* StackFailed as errors:
        failures += [error for error in errors.exceptions if isinstance(error, StackFailed)]
    except* OSError as errors:
        failures += [StackFailed("files", str(error)) for error in errors.exceptions]
    for failure in failures:
        tell(failed=failure.part, why=failure.why)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(
        asyncio.run(
            _main(Path(sys.argv[1]), StackSettings.model_validate_json(sys.argv[2]), int(sys.argv[3]))
        )
    )
