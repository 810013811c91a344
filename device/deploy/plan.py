"""What to do next so that the device runs what it shall. Pure: facts come in, steps go out.

A plan holds the *next* step of each service that needs one; it is made anew
after every step, from a fresh observation. No step left and every service well
is the only "done".

Rules, in words:
* Every pull comes before the first removal: a failed download costs nothing that runs.
* What leaves goes before what comes: no two services ever share a port or a volume by accident.
* A service is started when what it depends on is as it asks, also after a reboot. What became unhealthy
  later stops nobody.
* A container is replaced only when its replacement could start at once.
* A service that a command holds or has in hand is left alone; so is a container of a newer generation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from device.deploy.attempts import FRESH
from device.deploy.picture import (
    Observed,
    Scene,
    View,
    Want,
    crowded,
    leaving,
    missing_images,
    scene_of,
    unmet,
)
from device.deploy.steps import Create, Pull, Remove, Restart, Start, Step, Stop
from device.engine.protocol import Container, ContainerSpec, ContainerState
from schemas.desired import RestartPolicy
from schemas.reported import Health, ServiceState

LEAVING_GRACE = 10.0
"""Seconds that a container gets to end when its manifest is no longer known."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How one service stands, its next step if there is one, and why there is none if it waits.

    `due` is when the plan will look different though nothing else happened.
    """

    service: str
    state: ServiceState
    container: Container | None = None
    health: Health = Health.NONE
    step: Step | None = None
    reason: str = ""
    due: datetime | None = None


def plan(want: Want, seen: Observed, now: datetime) -> list[Step]:
    """Return the next step of each service that needs one; none if nothing is to be done now."""
    steps = [each.step for each in survey(want, seen, now) if each.step is not None]
    pulls = [step for step in steps if isinstance(step, Pull)]
    others = [step for step in steps if not isinstance(step, Pull)]
    return [*pulls, *leave(want, seen, now), *others]


def leave(want: Want, seen: Observed, now: datetime) -> list[Step]:
    """Return the next step for each container whose service is not in the release any more."""
    if missing_images(want, seen.containers) - seen.images:
        return []
    return [
        _away(each, LEAVING_GRACE)
        for each in leaving(want, seen.containers)
        if each.service not in want.reserved
        and seen.attempts.get(each.service, FRESH).next_start(now) is None
    ]


def survey(want: Want, seen: Observed, now: datetime) -> list[Standing]:
    """Return how each service of *want* stands, in the release's order."""
    scene = scene_of(want, seen, now)
    standings = (_stand(view, scene) for view in scene.views.values())
    return [replace(each, step=None) if each.service in want.reserved else each for each in standings]


def _stand(view: View, scene: Scene) -> Standing:  # noqa: PLR0911 - one line per case
    container = view.container
    if view.service.name in scene.want.held:
        return _hold(view)
    if container is None:
        return _make(view, scene)
    if view.spare is not None and view.due is None and not scene.missing:
        state = ServiceState.RUNNING if view.running else ServiceState.STARTING
        return _standing(view, state, step=_away(view.spare, view.service.stop_grace))
    if not view.fits:
        return _supersede(view, container, scene)
    match container.state:
        case ContainerState.CREATED:
            return _start(view, container, scene)
        case ContainerState.RUNNING:
            return _keep(view, container)
        case ContainerState.EXITED:
            return _ended(view, container, scene)
        case _:
            assert_never(container.state)


def _hold(view: View) -> Standing:
    container = view.container
    if container is None or container.state is not ContainerState.RUNNING:
        return _standing(view, ServiceState.STOPPED, reason="held by a stop command")
    stop = Stop(view.service.name, container.id, view.service.stop_grace)
    return _standing(view, ServiceState.RUNNING, step=stop, reason="is being stopped by a command")


def _make(view: View, scene: Scene) -> Standing:
    if view.service.image in scene.missing:
        return _fetch(view)
    if reason := unmet(view, scene) or crowded(view, scene):
        return _standing(view, ServiceState.WAITING, reason=reason)
    if view.due is not None:
        return _pause(view)
    spec = ContainerSpec(view.service, scene.want.generation, scene.want.release_id)
    return _standing(view, ServiceState.STARTING, step=Create(spec))


def _supersede(view: View, container: Container, scene: Scene) -> Standing:
    if view.service.image in scene.missing:
        return _fetch(view)
    if scene.missing:
        return _standing(view, ServiceState.WAITING, reason=f"waits until {min(scene.missing)} is here")
    in_the_way = any((port.host, port.protocol) in scene.wanted_ports for port in container.ports)
    if not in_the_way and (reason := unmet(view, scene)):
        return _standing(view, ServiceState.WAITING, reason=reason)
    if view.due is not None:
        return _pause(view)
    return _standing(view, ServiceState.STARTING, step=_away(container, view.service.stop_grace))


def _start(view: View, container: Container, scene: Scene) -> Standing:
    if reason := unmet(view, scene) or crowded(view, scene):
        return _standing(view, ServiceState.WAITING, reason=reason)
    if view.due is not None:
        return _pause(view)
    return _standing(view, ServiceState.STARTING, step=Start(view.service.name, container.id))


def _keep(view: View, container: Container) -> Standing:
    if view.health is Health.STARTING:
        return _standing(view, ServiceState.STARTING)
    if view.health is not Health.UNHEALTHY or view.service.restart is RestartPolicy.NEVER:
        return _standing(view, ServiceState.RUNNING)
    if view.due is not None:
        return _standing(view, ServiceState.RUNNING, due=view.due)
    restart = Restart(view.service.name, container.id, view.service.stop_grace)
    return _standing(view, ServiceState.RUNNING, step=restart)


def _ended(view: View, container: Container, scene: Scene) -> Standing:
    asked = view.service.name in scene.want.asked
    policy = view.service.restart
    if view.completed and policy is not RestartPolicy.ALWAYS and not asked:
        return _standing(view, ServiceState.COMPLETED)
    if policy is RestartPolicy.NEVER and not asked:
        reason = f"ended with {container.exit_code} and is never to be started again"
        return _standing(view, ServiceState.FAILED, reason=reason)
    return _start(view, container, scene)


def _fetch(view: View) -> Standing:
    if view.due is not None:
        return _pause(view)
    pull = Pull(view.service.name, view.service.image)
    return _standing(view, ServiceState.STARTING, step=pull, reason=f"fetches {view.service.image}")


def _pause(view: View) -> Standing:
    return _standing(view, ServiceState.BACKING_OFF, due=view.due, reason="pauses before the next attempt")


def _away(container: Container, grace: float) -> Step:
    if container.state is ContainerState.RUNNING:
        return Stop(container.service, container.id, grace)
    return Remove(container.service, container.id)


def _standing(
    view: View,
    state: ServiceState,
    *,
    step: Step | None = None,
    reason: str = "",
    due: datetime | None = None,
) -> Standing:
    return Standing(view.service.name, state, view.container, view.health, step, reason, due)
