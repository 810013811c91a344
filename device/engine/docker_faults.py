"""What a container engine's refusals mean: from a status and a text to the right error."""

from __future__ import annotations

import re

from device.engine.protocol import EngineRefused, EngineUnreachable, ImageNotFound, NoSuchContainer
from schemas.errors import ErrorCode, FailureClass, FleetError, Problem, problem

_PORT = re.compile(r"Bind for \S*?:(\d+) failed|listen \w+ \S*?:(\d+): bind|host port for [^:]*:(\d+)")
_TAKEN = re.compile(r"port is already allocated|address already in use", re.IGNORECASE)
_OTHER_PROCESSOR = re.compile(
    r"exec format error|no matching manifest|does not match the specified platform|"
    r"operating system cannot be used|cannot be used on this platform",
    re.IGNORECASE,
)
_DENIED = re.compile(r"unauthorized|authentication required|no basic auth|denied", re.IGNORECASE)
_ABSENT = re.compile(
    r"manifest unknown|not found|does not exist|repository name not known|no such image", re.IGNORECASE
)
_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_SILENT = re.compile(
    r"no such host|connection refused|i/o timeout|timeout|deadline exceeded|request canceled|"
    r"network is unreachable|no route to host|server misbehaving|connection reset|EOF|"
    r"temporary failure in name resolution|bad gateway|service unavailable|unexpected HTTP status: 5",
    re.IGNORECASE,
)
_NOT_FOUND = 404
_UNAVAILABLE = frozenset({502, 503, 504})


def refusal(status: int, text: str, *, doing: str, element: str) -> FleetError:
    """Return the error for an answer other than success to a step such as *doing* "starting web"."""
    if status in _UNAVAILABLE:
        return unreachable(f"status {status}: {text}", doing=doing)
    if status == _NOT_FOUND and "no such container" in text.lower():
        return NoSuchContainer(problem(ErrorCode.SERVICE_UNKNOWN, f"{doing}: {text}", element=element))
    if status == _NOT_FOUND and "no such image" in text.lower():
        return ImageNotFound(_no_image(f"{doing}: {text}", element))
    if _TAKEN.search(text):
        return EngineRefused(_port_taken(text, doing))
    return EngineRefused(_host_trouble(text, doing, element) or _refused(text, doing, element))


def pull_refusal(text: str, *, image: str) -> FleetError:
    """Return the error for a pull that failed with *text*: not there, not allowed, or nobody answered."""
    doing = f"pulling {image}"
    if (trouble := _host_trouble(text, doing, image)) is not None:
        return EngineRefused(trouble)
    if _ABSENT.search(text):
        return ImageNotFound(_no_image(f"{doing}: the registry does not have it ({text})", image))
    if _DENIED.search(text):
        message = f"{doing}: the registry refused this device ({text}); check the engine's credentials"
        return ImageNotFound(_no_image(message, image, FailureClass.AUTH))
    if _SILENT.search(text):
        message = f"{doing}: the device does not have it and no registry answered ({text})"
        return ImageNotFound(_no_image(message, image, FailureClass.NETWORK))
    return EngineRefused(
        problem(
            ErrorCode.ENGINE_REFUSED,
            f"{doing}: {text}",
            element=image,
            failure_class=FailureClass.REGISTRY,
            retryable=True,
        )
    )


def unreachable(text: str, *, doing: str) -> EngineUnreachable:
    """Return the error for an engine that gave no answer, or none that makes sense."""
    message = f"{doing}: the container engine does not answer ({text}); is its daemon running?"
    return EngineUnreachable(problem(ErrorCode.ENGINE_UNREACHABLE, message, failure_class=FailureClass.AGENT))


def _no_image(message: str, image: str, failure_class: FailureClass = FailureClass.IMAGE) -> Problem:
    return problem(
        ErrorCode.IMAGE_NOT_FOUND,
        message,
        element=image,
        failure_class=failure_class,
        retryable=failure_class is FailureClass.NETWORK,
    )


def _port_taken(text: str, doing: str) -> Problem:
    found = _PORT.search(text)
    port = next((group for group in found.groups() if group), "") if found else ""
    message = (
        f"{doing}: port {port} of this device is taken; free it or choose another"
        if port
        else f"{doing}: {text}"
    )
    return problem(ErrorCode.PORT_IN_USE, message, element=port or None, failure_class=FailureClass.RESOURCE)


def _host_trouble(text: str, doing: str, element: str) -> Problem | None:
    if _FULL.search(text):
        return problem(
            ErrorCode.ENGINE_REFUSED,
            f"{doing}: the device's disk is full ({text})",
            element=element,
            failure_class=FailureClass.DISK,
            retryable=True,
        )
    if _OTHER_PROCESSOR.search(text):
        message = f"{doing}: the image is for another processor or system ({text})"
        return problem(
            ErrorCode.IMAGE_WRONG_PLATFORM, message, element=element, failure_class=FailureClass.IMAGE
        )
    return None


def _refused(text: str, doing: str, element: str) -> Problem:
    return problem(ErrorCode.ENGINE_REFUSED, f"{doing}: {text}", element=element)
