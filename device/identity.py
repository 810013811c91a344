"""Who the device is: its own key, the certificate it enrolled for, and where its broker is.

::

    DATA/identity/key.pem       P-256, made here, mode 0600; never leaves the device
    DATA/identity/cert.pem      the certificate, then its issuer's
    DATA/identity/ca.pem        the root that servers are verified against
    DATA/identity/device.json   id, broker and topic root

The directory appears whole, when the cloud has answered. Until then key and id
wait in `DATA/identity.draft`, so a claim that is repeated after a crash is the
same claim.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from pydantic import ValidationError

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
        draft, device = _draft(data_dir)
        request = _request(device, (draft / "key.pem").read_bytes(), claim)
        answer = _ask(claim, request)
        if answer.device != device:
            text = f"the cloud answered for device {answer.device}, this one is {device}; enrol again"
            raise NotEnrolled(problem(ErrorCode.DEVICE_MISMATCH, text))
        _keep(data_dir, draft, answer)
    except OSError as error:
        text = f"{data_dir} cannot be written: {error}; check its rights and its disk"
        raise NotEnrolled(problem(ErrorCode.INTERNAL, text, failure_class=FailureClass.DISK)) from error
    identity = load(data_dir)
    assert identity is not None  # noqa: S101 - it was just kept
    return identity


def _draft(data_dir: Path) -> tuple[Path, UUID]:
    """Return the directory with the device's key and the id chosen for it, made at the first call."""
    from cryptography.hazmat.primitives.asymmetric.ec import (  # noqa: PLC0415 - 10 MB an enrolled agent can do without
        SECP256R1,
        generate_private_key,
    )
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    draft = data_dir / "identity.draft"
    draft.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (draft / "key.pem").exists():
        key = generate_private_key(SECP256R1())
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write(draft / "key.pem", text, mode=0o600)
    if not (draft / "id").exists():
        _write(draft / "id", str(uuid4()).encode(), mode=0o600)
    return draft, UUID((draft / "id").read_text())


def _request(device: UUID, key_pem: bytes, claim: Claim) -> bytes:
    from cryptography import x509  # noqa: PLC0415 - see _draft
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key  # noqa: PLC0415

    key = load_pem_private_key(key_pem, password=None)
    assert isinstance(key, EllipticCurvePrivateKey)  # noqa: S101 - `_draft` makes no other
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, str(device))])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    try:
        request = EnrolmentRequest(
            token=claim.token,
            csr=csr.public_bytes(Encoding.PEM).decode(),
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


def _keep(data_dir: Path, draft: Path, answer: EnrolmentAnswer) -> None:
    record = _Record(
        device=answer.device,
        mqtt_host=answer.mqtt_host,
        mqtt_port=answer.mqtt_port,
        topic_root=answer.topic_root,
    )
    _write(draft / "cert.pem", answer.certificate.encode(), mode=0o644)
    _write(draft / "ca.pem", answer.ca.encode(), mode=0o644)
    _write(draft / "device.json", to_wire(record), mode=0o644)
    (draft / "id").unlink()
    draft.rename(data_dir / "identity")
    _sync(data_dir)


def forget(data_dir: Path) -> None:
    """Delete the identity and whatever was begun of one; nothing happens where there is none."""
    for name in ("identity", "identity.draft"):
        shutil.rmtree(data_dir / name, ignore_errors=True)


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """Replace *path* in one step, on disk when this returns."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
