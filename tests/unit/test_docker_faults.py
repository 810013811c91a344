"""What Docker's refusals become."""

import pytest

from device.engine.docker_faults import pull_refusal, refusal
from device.engine.protocol import EngineRefused, EngineUnreachable, ImageNotFound, NoSuchContainer
from schemas.errors import FailureClass, FleetError


@pytest.mark.parametrize(
    ("status", "text", "kind", "code", "element"),
    [
        (404, "No such container: abc", NoSuchContainer, "service.unknown", "web"),
        (404, "No such image: shop/web:1", ImageNotFound, "image.not_found", "web"),
        (
            500,
            "driver failed: Bind for 127.0.0.1:8080 failed: port is already allocated",
            EngineRefused,
            "port.in_use",
            "8080",
        ),
        (
            500,
            "Error starting userland proxy: listen tcp4 127.0.0.1:9090: bind: address already in use",
            EngineRefused,
            "port.in_use",
            "9090",
        ),
        (
            500,
            "failed to bind host port for 0.0.0.0:81:172.17.0.2:80/tcp: address already in use",
            EngineRefused,
            "port.in_use",
            "81",
        ),
        (
            400,
            'OCI runtime create failed: exec: "/app": exec format error',
            EngineRefused,
            "image.wrong_platform",
            "web",
        ),
        (500, "write /layer: no space left on device", EngineRefused, "engine.refused", "web"),
        (400, "invalid mount config", EngineRefused, "engine.refused", "web"),
        (503, "shutting down", EngineUnreachable, "engine.unreachable", None),
    ],
)
def test_a_refusal_names_what_stands_in_the_way(
    status: int, text: str, kind: type[FleetError], code: str, element: str | None
) -> None:
    error = refusal(status, text, doing="starting web", element="web")

    assert type(error) is kind
    assert (error.code, error.problem.element) == (code, element)
    assert error.problem.message.startswith("starting web: ")


@pytest.mark.parametrize(
    ("text", "code", "failure_class", "retryable"),
    [
        ("manifest for shop/web:1 not found: manifest unknown", "image.not_found", FailureClass.IMAGE, False),
        (
            "pull access denied for shop/web, repository does not exist or may require 'docker login'",
            "image.not_found",
            FailureClass.IMAGE,
            False,
        ),
        ("unauthorized: authentication required", "image.not_found", FailureClass.AUTH, False),
        (
            'Get "https://registry.example/v2/": dial tcp: lookup registry.example: no such host',
            "image.not_found",
            FailureClass.NETWORK,
            True,
        ),
        (
            'Get "https://registry.example/v2/": dial tcp 192.0.2.1:443: connect: connection refused',
            "image.not_found",
            FailureClass.NETWORK,
            True,
        ),
        (
            'Get "https://registry.example/v2/": dial tcp: lookup registry.example: server misbehaving',
            "image.not_found",
            FailureClass.NETWORK,
            True,
        ),
        (
            "no matching manifest for linux/arm/v7 in the manifest list entries",
            "image.wrong_platform",
            FailureClass.IMAGE,
            False,
        ),
        ("write /var/lib/x: no space left on device", "engine.refused", FailureClass.DISK, True),
        ("toomanyrequests: rate limit", "engine.refused", FailureClass.REGISTRY, True),
    ],
)
def test_a_failed_pull_says_whether_trying_again_can_help(
    *, text: str, code: str, failure_class: FailureClass, retryable: bool
) -> None:
    found = pull_refusal(text, image="shop/web:1").problem

    assert (found.code, found.failure_class, found.retryable) == (code, failure_class, retryable)
    assert found.element == "shop/web:1"
