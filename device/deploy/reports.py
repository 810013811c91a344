"""What the agent says of its services: the truth as last observed. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from device.deploy.plan import Standing
from schemas.desired import Desired, ServiceManifest
from schemas.errors import ErrorCode, FailureClass, Problem, problem
from schemas.reported import Health, Outcome, Phase, ServiceReport, ServiceState

SHORT_ID = 12


@dataclass(frozen=True, slots=True)
class KeeperState:
    """What runs and how far the newest generation is.

    `generation` is the newest accepted; `release_id` and `services` are of the
    release in effect, which is an earlier one while the newest is being staged
    or if it could not be.
    """

    generation: int = 0
    committed_generation: int = 0
    release_id: UUID | None = None
    phase: Phase = Phase.IDLE
    outcome: Outcome | None = None
    services: tuple[ServiceReport, ...] = ()
    problems: tuple[Problem, ...] = ()


def report_of(
    standing: Standing, service: ServiceManifest, *, restarts: int, failed: Problem | None, probe: str
) -> ServiceReport:
    """Return the report on one service; *failed* is its last failed step, *probe* what its check last met."""
    container = standing.container
    runs_well = standing.state is ServiceState.RUNNING and standing.health is not Health.UNHEALTHY
    return ServiceReport(
        name=service.name,
        state=standing.state,
        health=standing.health,
        image=service.image if container is None else container.image,
        image_id="" if container is None else container.image_id,
        container="" if container is None else container.id[:SHORT_ID],
        restarts=restarts,
        started_at=None if container is None else container.started_at,
        exit_code=None if container is None else container.exit_code,
        ports=[] if container is None else list(container.ports),
        error=None if runs_well else failed or error_of(standing, probe=probe),
    )


def error_of(standing: Standing, *, probe: str) -> Problem | None:
    """Return what is wrong with a service, or None."""
    name, container = standing.service, standing.container
    match standing.state, standing.health:
        case ServiceState.WAITING, _:
            return problem(
                ErrorCode.SERVICE_WAITING,
                f"{name} {standing.reason}",
                failure_class=FailureClass.DEPENDENCY,
                element=name,
            )
        case ((ServiceState.BACKING_OFF | ServiceState.FAILED), _) if (
            container and container.exit_code is not None
        ):
            killed = ", killed for lack of memory" if container.oom_killed else ""
            return problem(
                ErrorCode.SERVICE_EXITED,
                f"{name} ended with exit code {container.exit_code}{killed}",
                failure_class=FailureClass.RESOURCE if container.oom_killed else FailureClass.HEALTH,
                element=name,
                retryable=standing.state is ServiceState.BACKING_OFF,
            )
        case _, Health.UNHEALTHY:
            met = f": {probe}" if probe else ""
            return problem(
                ErrorCode.HEALTH_FAILED,
                f"{name} runs but is unhealthy{met}",
                failure_class=FailureClass.HEALTH,
                element=name,
            )
        case _:
            return None


def not_begun(
    desired: Desired, obstacle: Problem | None, outcome: Outcome | None
) -> tuple[ServiceReport, ...]:
    """Return the reports of a first release of which nothing could be made yet."""
    state = ServiceState.WAITING if outcome is None else ServiceState.FAILED
    return tuple(
        ServiceReport(
            name=service.name,
            state=state,
            image=service.image,
            error=obstacle if obstacle is not None and obstacle.element == service.image else None,
        )
        for service in desired.release.services
    )


def not_well(reports: tuple[ServiceReport, ...], held: frozenset[str]) -> frozenset[str]:
    """Return the services that are not as they should be; a held one is as it was told to be."""
    return frozenset(each.name for each in reports if not each.well and each.name not in held)


def give_up_problem(report: ServiceReport, phase: Phase, last_lines: list[str]) -> Problem:
    """Return why *report*'s service made its generation fail, with its last words."""
    if report.error is not None:
        found = report.error
    else:
        message = f"{report.name} is {report.state.value}, its health is {report.health.value}"
        found = problem(ErrorCode.HEALTH_FAILED, message, failure_class=FailureClass.HEALTH)
    details = [f"restarted {report.restarts} times"] if report.restarts else []
    if report.exit_code is not None and found.code != ErrorCode.SERVICE_EXITED:
        details.append(f"last exit code {report.exit_code}")
    said = "; last lines:\n" + "\n".join(last_lines) if last_lines else ""
    message = f"{found.message}{''.join(f', {detail}' for detail in details)}{said}"
    return found.model_copy(update={"message": message[:2000], "phase": phase.value, "element": report.name})


def unsettled(phase: Phase, steps: int) -> Problem:
    """Return why a generation failed although every service is well: it never came to rest."""
    message = f"every service is well, but {steps} steps are still to be taken; see the agent's log"
    return problem(ErrorCode.HEALTH_FAILED, message, failure_class=FailureClass.AGENT, phase=phase.value)
