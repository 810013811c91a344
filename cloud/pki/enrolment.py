"""From a device's certificate request to its certificate. Nothing is believed before its proof."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from cloud.pki.authority import Authority
from cloud.pki.requests import accepted_key
from schemas.errors import ErrorCode, refuse, shown

_UUID_VERSION = 4


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks for a certificate: the device's id, and the SHA-256 of its public key."""

    device: UUID
    key: str


@dataclass(frozen=True, slots=True)
class Issued:
    """A device's certificate with its issuer's, PEM, and when it ends."""

    chain: str
    root: str
    expires_at: datetime


def identity_of(csr: str) -> Identity:
    """Return the device and key that the PEM request *csr* speaks for, proven by its signature.

    Raises FleetError with a `csr.*` code.
    """
    content = csr.encode("utf-8", "replace")
    device = _device(content)
    key = accepted_key(content, device)
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Identity(device, hashlib.sha256(spki).hexdigest())


def issue(authority: Authority, csr: str, device: UUID, now: datetime) -> Issued:
    """Return a certificate for *device*; reads and signs, so not in the event loop.

    Raises FleetError with a `csr.*` code.
    """
    chain = authority.sign_device(csr.encode(), device, now=now)
    leaf = x509.load_pem_x509_certificate(chain)
    root = authority.root.public_bytes(Encoding.PEM)
    return Issued(chain=chain.decode(), root=root.decode(), expires_at=leaf.not_valid_after_utc)


def _device(csr: bytes) -> UUID:
    try:
        subject = x509.load_pem_x509_csr(csr).subject
        names = [str(each.value) for each in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except (ValueError, x509.InvalidVersion):
        refuse(ErrorCode.CSR_INVALID, "csr: this is not one PEM certificate request (PKCS#10)", field="csr")
    word = names[0] if names else ""
    try:
        device = UUID(word)
    except ValueError:
        device = None
    if device is None or str(device) != word or device.version != _UUID_VERSION:
        message = f"csr: the common name must be the device's id, a UUID4 in lower case; found {shown(word)}"
        refuse(ErrorCode.CSR_SUBJECT_MISMATCH, message, field="csr")
    return device
