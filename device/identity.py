"""Who the device is: its own key, the certificate it enrolled for, and where its broker is.

::

    DATA/identity/key.pem       P-256, made here, mode 0600; never leaves the device
    DATA/identity/cert.pem      the certificate, then its issuer's
    DATA/identity/ca.pem        the root that servers are verified against
    DATA/identity/device.json   id, broker and topic root

The directory appears whole, when the cloud has answered. Until then its
beginnings wait in `DATA/identity.draft`; see `device.draft`.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import ValidationError

from device.draft import DIRECTORY, Draft, draft, sync, write
from schemas.base import Id, Message, to_wire
from schemas.device import EnrolmentAnswer, EnrolmentRequest
from schemas.errors import ErrorCode, FailureClass, FleetError, Problem, Unreadable, problem
from schemas.reading import read, read_json

_ANSWER_WITHIN = 30.0
_LONGEST_ANSWER = 256 * 1024
_TRY_AGAIN = {408, 425, 429}
_FAULTS = 500


class NotEnrolled(FleetError):  # noqa: N818 - says what is the case
    """The device did not get its certificate; `problem.retryable` tells whether trying again can help."""


class _Record(Message):
    """`device.json`."""

    device: Id
    mqtt_host: str
    mqtt_port: int
    topic_root: str


@dataclass(frozen=True, slots=True)
class Identity:
    """An enrolled device."""

    device: UUID
    mqtt_host: str
    mqtt_port: int
    topic_root: str
    directory: Path

    @property
    def key(self) -> Path:
        """The private key."""
        return self.directory / "key.pem"

    @property
    def chain(self) -> Path:
        """The certificate and its issuer's."""
        return self.directory / "cert.pem"

    @property
    def ca(self) -> Path:
        """What servers are verified against."""
        return self.directory / "ca.pem"


@dataclass(frozen=True, slots=True, repr=False)
class Claim:
    """A right to enrol, and what the device would like to be called. Not printed: the token is a secret."""

    url: str
    token: str
    name: str
    labels: Mapping[str, str]
    ca_file: Path | None = None


def load(data_dir: Path) -> Identity | None:
    """Return the identity in *data_dir*, or None before enrolment. Raises `NotEnrolled` if it is damaged."""
    directory = data_dir / "identity"
    if not directory.exists():
        return None
    try:
        record = read(_Record, (directory / "device.json").read_bytes())
        identity = Identity(
            device=record.device,
            mqtt_host=record.mqtt_host,
            mqtt_port=record.mqtt_port,
            topic_root=record.topic_root,
            directory=directory,
        )
        for file in (identity.key, identity.chain, identity.ca):
            file.read_bytes()
    except (OSError, Unreadable) as error:
        text = (
            f"the identity in {directory} is damaged ({error}); run fleet-agent purge --identity, then enrol"
        )
        raise NotEnrolled(problem(ErrorCode.INTERNAL, text, failure_class=FailureClass.DISK)) from error
    return identity


async def enrol(data_dir: Path, claim: Claim) -> Identity:
    """Return the device's identity: the one it has, or one obtained with *claim*. Raises `NotEnrolled`."""
    return await asyncio.to_thread(_enrol, data_dir, claim)


def _enrol(data_dir: Path, claim: Claim) -> Identity:
    if (present := load(data_dir)) is not None:
        return present
    try:
        begun = draft(data_dir)
        answer = _ask(claim, _request(begun, claim))
        if answer.device != begun.device:
            text = f"the cloud answered for device {answer.device}, this one is {begun.device}; enrol again"
            raise NotEnrolled(problem(ErrorCode.DEVICE_MISMATCH, text))
        _keep(data_dir, begun, answer)
    except OSError as error:
        text = f"{data_dir} cannot be written: {error}; check its rights and its disk"
        raise NotEnrolled(problem(ErrorCode.INTERNAL, text, failure_class=FailureClass.DISK)) from error
    identity = load(data_dir)
    assert identity is not None  # noqa: S101 - it was just kept
    return identity


def _request(draft: Draft, claim: Claim) -> bytes:
    try:
        request = EnrolmentRequest(
            token=claim.token,
            csr=draft.request,
            name=claim.name,
            labels=dict(claim.labels),
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        text = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise NotEnrolled(problem(ErrorCode.VALUE_OUT_OF_RANGE, text)) from None
    return to_wire(request)


def _ask(claim: Claim, body: bytes) -> EnrolmentAnswer:
    url = f"{claim.url.rstrip('/')}/edge/enrolment/certificates"
    if urlsplit(url).scheme not in {"http", "https"}:
        raise NotEnrolled(problem(ErrorCode.ROUTE_UNKNOWN, f"{claim.url} is not an http or https address"))
    request = urllib.request.Request(  # noqa: S310 - checked above
        url, data=body, headers={"Content-Type": "application/json", "Accept": "application/json"}
    )
    context = ssl.create_default_context(cafile=claim.ca_file) if url.startswith("https:") else None
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_WITHIN, context=context) as answer:  # noqa: S310
            content = answer.read(_LONGEST_ANSWER)
    except urllib.error.HTTPError as error:
        with error:
            raise NotEnrolled(_refusal(error.code, error.read(_LONGEST_ANSWER), url)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        text = f"{url} does not answer: {reason}; check the address, and that the cloud runs"
        fault = problem(ErrorCode.CLOUD_UNREACHABLE, text, failure_class=FailureClass.NETWORK)
        raise NotEnrolled(fault) from error
    try:
        return EnrolmentAnswer.model_validate_json(json.dumps(read_json(content)["data"]))
    except (Unreadable, ValidationError, KeyError, TypeError) as error:
        text = f"{url} answered something else than a certificate; check the address"
        raise NotEnrolled(problem(ErrorCode.VALUE_WRONG_TYPE, text)) from error


def _refusal(status: int, content: bytes, url: str) -> Problem:
    """Return why the cloud refused, from the common envelope if it came in one."""
    again = status >= _FAULTS or status in _TRY_AGAIN
    try:
        envelope = read_json(content)
        return Problem(code=envelope["code"], message=envelope["message"][:2000], retryable=again)
    except (Unreadable, ValidationError, KeyError, TypeError):
        text = f"{url} answered with HTTP status {status}; check the address"
        return problem(ErrorCode.CLOUD_UNREACHABLE, text, retryable=again)


def _keep(data_dir: Path, draft: Draft, answer: EnrolmentAnswer) -> None:
    record = _Record(
        device=answer.device,
        mqtt_host=answer.mqtt_host,
        mqtt_port=answer.mqtt_port,
        topic_root=answer.topic_root,
    )
    write(draft.directory / "cert.pem", answer.certificate.encode(), mode=0o644)
    write(draft.directory / "ca.pem", answer.ca.encode(), mode=0o644)
    write(draft.directory / "device.json", to_wire(record), mode=0o644)
    kept = draft.directory.rename(data_dir / "identity")
    sync(data_dir)
    for name in ("id", "request.pem"):  # only now: without its id, a claim repeated would be another's
        (kept / name).unlink()


def forget(data_dir: Path) -> None:
    """Delete the identity and whatever was begun of one; nothing happens where there is none."""
    for name in ("identity", DIRECTORY):
        shutil.rmtree(data_dir / name, ignore_errors=True)
