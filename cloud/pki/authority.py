"""The fleet's certificate authority, kept in a directory.

::

    root/root.key          the root's private key. Only `create` needs it: move `root/` to offline
                           storage afterwards and everything below goes on working
    root.pem               what devices, services and people verify servers against (`ca_file`)
    issuing/device.key     signs devices' certificates
    issuing/device.pem     sent by a device after its own certificate
    issuing/service.key    signs servers', services' and operators' certificates
    issuing/service.pem    sent after those certificates
    anchors/device.pem     the broker's devices listener trusts this and nothing else
    anchors/service.pem    the broker's services listener trusts this and nothing else

Directories have mode 0700 and keys 0600; the keys are not encrypted at rest. Whoever reads `issuing/` can
become any device or service of the fleet.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Self
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloud.pki import certificates
from cloud.pki.certificates import Issuer
from cloud.pki.requests import accepted_key, check_service_name

_YEAR = timedelta(days=365)
_BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
_CLIENTS = (ExtendedKeyUsageOID.CLIENT_AUTH,)


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """A private key and the chain that vouches for it, leaf first, both PEM. Not printed: it is a secret."""

    key: bytes
    chain: bytes

    def save(self, *, key: Path, chain: Path) -> None:
        """Write both files, replacing older ones; the key with mode 0600."""
        _write(key, self.key, mode=0o600)
        _write(chain, self.chain, mode=0o644)


@dataclass(frozen=True, slots=True, repr=False)
class Authority:
    """Signs for one fleet. Holds private keys, so it is not printed."""

    directory: Path
    root: x509.Certificate
    devices: Issuer
    services: Issuer

    @property
    def root_file(self) -> Path:
        """What a client verifies servers against."""
        return self.directory / "root.pem"

    @property
    def device_anchor(self) -> Path:
        """What a server trusts that serves devices only."""
        return self.directory / "anchors" / "device.pem"

    @property
    def service_anchor(self) -> Path:
        """What a server trusts that serves services and operators only."""
        return self.directory / "anchors" / "service.pem"

    @classmethod
    def open(cls, directory: Path, *, now: datetime) -> Self:
        """Return the authority in *directory*, made first if there is none; by one of several processes.

        Raises FileExistsError if *directory* holds something else: it is never overwritten.
        """
        if not (directory / "root.pem").exists():
            try:
                cls.create(directory, now=now)
            except FileExistsError:
                if not (directory / "root.pem").exists():  # it was not another process that made it
                    raise
        return cls.load(directory)

    @classmethod
    def create(
        cls,
        directory: Path,
        *,
        now: datetime,
        root_lifetime: timedelta = 20 * _YEAR,
        issuing_lifetime: timedelta = 5 * _YEAR,
    ) -> Self:
        """Make a new authority in *directory*, whole or not at all, and return it."""
        directory.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
        try:
            _fill(draft, now=now, root_lifetime=root_lifetime, issuing_lifetime=issuing_lifetime)
            if directory.exists():
                directory.rmdir()  # an empty directory makes way; anything else is somebody's
            draft.rename(directory)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise FileExistsError(f"cannot make an authority in {directory}: {error.strerror}") from error
        return cls.load(directory)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Return the authority in *directory*; the root's key may be elsewhere.

        Raises FileNotFoundError if a file is missing and ValueError if one cannot be read.
        """
        return cls(
            directory=directory,
            root=_certificate(directory / "root.pem"),
            devices=_issuer(directory / "issuing" / "device"),
            services=_issuer(directory / "issuing" / "service"),
        )

    def issue_server(
        self,
        *,
        names: Sequence[str] = (),
        addresses: Sequence[IPv4Address | IPv6Address] = (),
        now: datetime,
        lifetime: timedelta = _YEAR,
    ) -> Credentials:
        """Return a fresh key and chain for a server reached by *names* and *addresses*; one at least."""
        key = generate_private_key(SECP256R1())
        leaf = certificates.server(
            self.services, key.public_key(), names=names, addresses=addresses, now=now, lifetime=lifetime
        )
        return _credentials(key, leaf, self.services)

    def issue_client(self, common_name: str, *, now: datetime, lifetime: timedelta = _YEAR) -> Credentials:
        """Return a fresh key and chain for a service or an operator.

        Raises FleetError(`csr.subject_mismatch`) for a name that could pass as a device or a pattern.
        """
        check_service_name(common_name)
        key = generate_private_key(SECP256R1())
        leaf = certificates.service(
            self.services, key.public_key(), name=common_name, now=now, lifetime=lifetime
        )
        return _credentials(key, leaf, self.services)

    def sign_device(
        self, csr_pem: bytes, device_id: UUID, *, now: datetime, lifetime: timedelta = timedelta(days=90)
    ) -> bytes:
        """Return the PEM chain, leaf first, for a device's own key.

        The certificate never outlives the authority that signs it. Raises FleetError, see
        `cloud.pki.requests.accepted_key`.
        """
        key = accepted_key(csr_pem, device_id)
        leaf = certificates.device(self.devices, key, device_id=device_id, now=now, lifetime=lifetime)
        return _pem(leaf) + _pem(self.devices.certificate)


def _fill(directory: Path, *, now: datetime, root_lifetime: timedelta, issuing_lifetime: timedelta) -> None:
    for folder in ("root", "issuing", "anchors"):
        (directory / folder).mkdir(mode=0o700)
    root_key = generate_private_key(SECP256R1())
    root = Issuer(
        certificates.root(root_key, name="Fleetline root CA", now=now, lifetime=root_lifetime), root_key
    )
    _write(directory / "root" / "root.key", _key_pem(root_key), mode=0o600)
    _write(directory / "root.pem", _pem(root.certificate), mode=0o644)
    for name, usages in (("device", _CLIENTS), ("service", _BOTH)):
        key = generate_private_key(SECP256R1())
        certificate = certificates.issuing(
            root, key, name=f"Fleetline {name} CA", usages=usages, now=now, lifetime=issuing_lifetime
        )
        _write(directory / "issuing" / f"{name}.key", _key_pem(key), mode=0o600)
        _write(directory / "issuing" / f"{name}.pem", _pem(certificate), mode=0o644)
        twin = certificates.anchor(Issuer(certificate, key))
        _write(directory / "anchors" / f"{name}.pem", _pem(twin), mode=0o644)


def _credentials(key: EllipticCurvePrivateKey, leaf: x509.Certificate, issuer: Issuer) -> Credentials:
    return Credentials(key=_key_pem(key), chain=_pem(leaf) + _pem(issuer.certificate))


def _issuer(stem: Path) -> Issuer:
    key_file = stem.with_suffix(".key")
    key = load_pem_private_key(key_file.read_bytes(), password=None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise ValueError(f"{key_file} holds a {type(key).__name__}, not an elliptic curve key")  # noqa: TRY004 - the file is wrong, not the caller
    return Issuer(_certificate(stem.with_suffix(".pem")), key)


def _certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """Replace *path* in one step; the bytes are never readable by more than *mode* allows."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
