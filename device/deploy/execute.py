"""Carries out one step on the engine, and says what a failed one means."""

from __future__ import annotations

from typing import assert_never

from device.deploy.steps import Create, Pull, Remove, Restart, Start, Step, Stop
from device.engine.protocol import Engine
from schemas.errors import ErrorCode, FailureClass, FleetError, Problem
from schemas.reported import Phase

_CLASS: dict[str, FailureClass] = {
    ErrorCode.IMAGE_NOT_FOUND: FailureClass.IMAGE,
    ErrorCode.IMAGE_WRONG_PLATFORM: FailureClass.IMAGE,
    ErrorCode.PORT_IN_USE: FailureClass.RESOURCE,
    ErrorCode.LIMIT_INVALID: FailureClass.CONFIG,
    ErrorCode.ENGINE_REFUSED: FailureClass.CONFIG,
    ErrorCode.ENGINE_UNREACHABLE: FailureClass.RESOURCE,
}


async def execute(step: Step, engine: Engine) -> None:
    """Carry out *step*. Raises what the engine raises."""
    match step:
        case Pull():
            await engine.pull(step.image)
        case Create():
            await engine.create(step.spec)
        case Start():
            await engine.start(step.container)
        case Stop():
            await engine.stop(step.container, grace=step.grace)
        case Restart():
            await engine.stop(step.container, grace=step.grace)
            await engine.start(step.container)
        case Remove():
            await engine.remove(step.container)
        case _:
            assert_never(step)


def step_problem(error: FleetError, step: Step, phase: Phase) -> Problem:
    """Return the problem of a failed step, with its class, phase and element filled in."""
    element = step.image if isinstance(step, Pull) else step.service
    return in_phase(error.problem, phase, element=element)


def in_phase(problem: Problem, phase: Phase, *, element: str) -> Problem:
    """Return *problem* with what it lacks of class, phase and element."""
    return problem.model_copy(
        update={
            "failure_class": problem.failure_class or _CLASS.get(problem.code, FailureClass.AGENT),
            "phase": problem.phase or phase.value,
            "element": problem.element or element,
        }
    )
