"""Which certificate signing requests and names the authority agrees to; pure.

A request comes from a device that is not trusted yet, so nothing of it is copied into the certificate but
the public key, and only after the request proved that the device holds the private half.
"""

import re
from uuid import UUID

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import NameOID

from cloud.pki.certificates import DeviceKey, device_name
from schemas.errors import ErrorCode, refuse, shown

_RSA_BITS = range(3072, 8193)
_SERVICE_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")


def accepted_key(csr_pem: bytes, device_id: UUID) -> DeviceKey:
    """Return the public key of a request that *device_id* may have signed.

    Raises FleetError: `csr.invalid`, `csr.weak_key`, `csr.subject_mismatch` or `csr.extension_not_allowed`.
    """
    request = _read(csr_pem)
    key = _strong_key(request)
    _check_proof(request)
    _check_subject(request, device_id)
    _check_extensions(request, device_id)
    return key


def check_service_name(name: str) -> None:
    """Raise FleetError(`csr.subject_mismatch`) if *name* could be mistaken for more than a service.

    The broker puts the name into topic patterns, where a slash or a wildcard would widen the rights, and
    a name that reads as a device id would be that device.
    """
    if _SERVICE_NAME.fullmatch(name) is None:
        refuse(
            ErrorCode.CSR_SUBJECT_MISMATCH,
            "a service's name is 1 to 64 of a-z 0-9 . _ - with a letter or digit at both ends; "
            f"got {shown(name)}",
        )
    if _is_uuid(name):
        refuse(ErrorCode.CSR_SUBJECT_MISMATCH, f"{name!r} reads as a device id; give the service a word")


def _read(csr_pem: bytes) -> x509.CertificateSigningRequest:
    try:
        return x509.load_pem_x509_csr(csr_pem)
    except (ValueError, x509.InvalidVersion):
        refuse(ErrorCode.CSR_INVALID, "the body is not one PEM certificate request")


def _strong_key(request: x509.CertificateSigningRequest) -> DeviceKey:  # noqa: RET503 - refuse never returns
    try:
        key = request.public_key()
    except (ValueError, UnsupportedAlgorithm):
        refuse(ErrorCode.CSR_WEAK_KEY, "the request's public key is of a kind that cannot be used")
    match key:
        case EllipticCurvePublicKey(curve=SECP256R1() | SECP384R1()) | Ed25519PublicKey():
            return key
        case RSAPublicKey(key_size=bits) if bits in _RSA_BITS:
            return key
        case _:
            refuse(
                ErrorCode.CSR_WEAK_KEY,
                f"the key is {_described(key)}; use P-256, P-384, Ed25519 or RSA of 3072 to 8192 bits",
            )


def _described(key: object) -> str:
    match key:
        case RSAPublicKey(key_size=bits):
            return f"RSA of {bits} bits"
        case EllipticCurvePublicKey(curve=curve):
            return f"elliptic curve {curve.name}"
        case _:
            return type(key).__name__


def _check_proof(request: x509.CertificateSigningRequest) -> None:
    try:
        proven = request.is_signature_valid
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        proven = False
    if not proven:
        refuse(ErrorCode.CSR_INVALID, "the request is not signed by the key it asks a certificate for")


def _check_subject(request: x509.CertificateSigningRequest, device_id: UUID) -> None:
    try:
        names = [each.value for each in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except ValueError:
        refuse(ErrorCode.CSR_INVALID, "the request's subject cannot be read")
    if names != [str(device_id)]:
        found = " and ".join(shown(name) for name in names[:2]) or "none"
        refuse(
            ErrorCode.CSR_SUBJECT_MISMATCH,
            f"the common name must be '{device_id}' and stand once; found {found}",
        )


def _check_extensions(request: x509.CertificateSigningRequest, device_id: UUID) -> None:
    try:
        extensions = list(request.extensions)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        refuse(ErrorCode.CSR_INVALID, "the request's extensions cannot be read")
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName) and list(value) == [device_name(device_id)]:
            continue
        refuse(
            ErrorCode.CSR_EXTENSION_NOT_ALLOWED,
            f"the request asks for extension {extension.oid.dotted_string}; "
            f"only the subject alternative name '{device_id.urn}' may stand there",
        )


def _is_uuid(name: str) -> bool:
    try:
        UUID(name)
    except ValueError:
        return False
    return True
