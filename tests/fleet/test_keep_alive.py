"""A device keeps its containers as ordered, whatever happens to them, and changes only what was changed."""

import os
import signal
import time

import pytest

from tests.servers.boxes import Happening, boxes, history, networks
from tests.servers.docker import docker
from tests.servers.registry import empty_registry
from tests.servers.shop import api, release, service_of, settle, store
from tests.servers.stack import Stack, until

BACK_WITHIN = 15
NAME = "gateway-02"


@pytest.fixture
def device(docker_stack: Stack) -> str:
    return docker_stack.devices[1]


@pytest.fixture
def kept(docker_stack: Stack, device: str, demo_image: str) -> str:
    settle(
        docker_stack,
        device,
        release(
            "kept",
            store(demo_image),
            api(demo_image),
            *(store(demo_image, name) for name in ("removed", "killed", "ended")),
        ),
    )
    return device


def commands_of(stack: Stack, device: str) -> list[str]:
    return [each["id"] for each in stack.get(f"/edge/devices/{device}/commands")["commands"]]


@pytest.mark.parametrize(
    ("service", "harm"), [("removed", ["rm", "-f"]), ("killed", ["kill"]), ("ended", ["stop"])]
)
def test_a_lost_container_is_back_and_healthy_within_fifteen_seconds_without_a_command(
    docker_stack: Stack, kept: str, service: str, harm: list[str]
) -> None:
    commands, before = commands_of(docker_stack, kept), boxes(kept)

    docker(*harm, before[service].id)
    began = time.monotonic()
    after = until(
        lambda: next(
            (
                each
                for each in boxes(kept).values()
                if each.service == service and each.well and each.started_at > before[service].started_at
            ),
            None,
        ),
        f"{service} to be healthy again",
        patience=BACK_WITHIN,
    )

    assert time.monotonic() - began < BACK_WITHIN
    until(
        lambda: (
            service_of(docker_stack.status(kept), service)["health"] == "healthy"
            and after.id.startswith(service_of(docker_stack.status(kept), service)["container"])
        ),
        "the device to report it",
    )
    assert commands_of(docker_stack, kept) == commands
    others = {name: box.id for name, box in boxes(kept).items() if name != service}
    assert others == {name: box.id for name, box in before.items() if name != service}


def test_everything_is_back_after_containers_and_network_were_removed(docker_stack: Stack, kept: str) -> None:
    agent = docker_stack.pid(NAME)
    os.kill(agent, signal.SIGSTOP)
    docker("rm", "-f", *(box.id for box in boxes(kept).values()))
    docker("network", "rm", *networks(kept))
    os.kill(agent, signal.SIGCONT)

    until(
        lambda: len(boxes(kept)) == 5 and all(box.well for box in boxes(kept).values()),
        "every service",
        patience=30,
    )

    assert len(networks(kept)) == 1
    answer = docker("exec", boxes(kept)["api"].id, "wget", "-q", "-O", "-", "http://127.0.0.1:8080/")
    assert '"store":"start' in answer


def test_a_held_service_stays_stopped_when_the_agent_is_killed(docker_stack: Stack, kept: str) -> None:
    assert docker_stack.command(kept, "stop", service="ended")["status"] == "succeeded"
    boot, pid = docker_stack.status(kept)["presence"]["boot"], docker_stack.pid(NAME)
    began = time.time()

    os.kill(pid, signal.SIGKILL)
    until(
        lambda: docker_stack.status(kept)["presence"]["boot"] != boot and docker_stack.status(kept)["online"],
        "the agent to be back",
    )
    assert docker_stack.command(kept, "ping")["status"] == "succeeded"
    # The keeper has looked since the kill: it brings another service back, and leaves the held one alone.
    docker("rm", "-f", boxes(kept)["removed"].id)
    until(lambda: "removed" in boxes(kept) and boxes(kept)["removed"].well, "the other service", patience=30)

    assert not boxes(kept)["ended"].running
    assert not [each for each in history(kept, began) if (each.action, each.service) == ("start", "ended")]
    assert service_of(docker_stack.status(kept), "ended")["state"] == "stopped"
    assert docker_stack.command(kept, "start", service="ended")["status"] == "succeeded"
    assert boxes(kept)["ended"].running


def test_a_service_starts_only_after_what_it_depends_on_is_healthy(
    docker_stack: Stack, device: str, demo_image: str
) -> None:
    settle(docker_stack, device, release("nothing"))
    began = time.time()

    settle(docker_stack, device, release("ordered", store(demo_image), api(demo_image)))

    happened = history(device, began)
    healthy = _first(happened, "health_status: healthy", "store")
    started = _first(happened, "start", "api")
    assert _first(happened, "start", "store").at < healthy.at < started.at


def test_a_new_generation_changes_only_what_was_changed(
    docker_stack: Stack, device: str, demo_image: str
) -> None:
    settle(docker_stack, device, release("changing", store(demo_image, "same"), store(demo_image, "other")))
    before = boxes(device)

    changed = store(demo_image, "other", env={"COLOUR": "green"})
    second = release("changing", store(demo_image, "same"), changed, version="2")
    ended = docker_stack.deploy(second, [device])

    assert ended["devices"][0]["outcome"] == "committed"
    after = boxes(device)
    assert after["same"] == before["same"]
    assert after["other"].id != before["other"].id
    assert "COLOUR=green" in after["other"].env


def test_the_same_release_again_changes_nothing(docker_stack: Stack, device: str, demo_image: str) -> None:
    wanted = release("again", store(demo_image))
    settle(docker_stack, device, wanted)
    before = boxes(device)

    ended = docker_stack.deploy(wanted, [device])

    assert ended["devices"][0]["outcome"] == "no_change"
    assert boxes(device) == before


def test_a_release_whose_image_is_missing_fails_and_the_old_one_runs_on(
    docker_stack: Stack, device: str, demo_image: str
) -> None:
    settle(docker_stack, device, release("good", store(demo_image)))
    before, began = boxes(device), time.time()

    with empty_registry() as registry:
        bad = release("bad", store(f"{registry}/shop/absent:1"), store(demo_image, "more"))
        ended = docker_stack.deploy(bad, [device])

    (told,) = ended["devices"]
    assert told["outcome"] == "failed_no_state_change", ended
    assert told["problems"][0]["code"] == "image.not_found"
    assert "absent" in told["problems"][0]["message"]
    assert boxes(device) == before
    assert not [each for each in history(device, began) if each.action in {"start", "die", "create"}]
    docker("kill", before["store"].id)
    assert until(lambda: boxes(device)["store"].well, "the old release to be kept on", patience=BACK_WITHIN)


def test_an_empty_release_removes_everything(docker_stack: Stack, device: str, demo_image: str) -> None:
    settle(docker_stack, device, release("good", store(demo_image)))

    ended = docker_stack.deploy(release("nothing"), [device])

    assert ended["devices"][0]["outcome"] == "committed"
    assert boxes(device) == {}
    assert docker_stack.status(device)["services"] == []


def _first(happened: list[Happening], action: str, service: str) -> Happening:
    return next(each for each in happened if each.action == action and each.service == service)
