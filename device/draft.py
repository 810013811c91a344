"""Makes what a device claims its certificate with: `python -m device.draft DATA` and what reads it.

::

    DATA/identity.draft/key.pem        P-256, made here, mode 0600; never leaves the device
    DATA/identity.draft/id             the id chosen for the device
    DATA/identity.draft/request.pem    the certificate request for that id, signed with that key

It is a process of its own because `cryptography` takes 10 MB, and an agent that
is enrolled never needs it again. Files that are there stay as they are, so a
claim that is repeated after a crash is the same claim.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

DIRECTORY = "identity.draft"
_WITHIN = 120.0
"""Seconds; a small board that boots is slow."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A device that is not enrolled yet."""

    directory: Path
    device: UUID
    request: str


def draft(data_dir: Path) -> Draft:
    """Return the draft in *data_dir*, made at the first call. Blocks. Raises `OSError`."""
    directory = data_dir / DIRECTORY
    if not (directory / "request.pem").exists():
        command = [sys.executable, "-m", "device.draft", str(data_dir)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_WITHIN)  # noqa: S603
        except subprocess.CalledProcessError as error:
            said = error.stderr.strip().rpartition("\n")[2]
            raise OSError(f"no key could be made: {said}") from error
        except subprocess.TimeoutExpired as error:
            raise OSError(f"no key could be made within {_WITHIN:g} s") from error
    device = UUID((directory / "id").read_text())
    return Draft(directory, device, (directory / "request.pem").read_text())


def make(data_dir: Path) -> None:
    """Make what is missing of the draft in *data_dir*. Raises `OSError`."""
    from cryptography import x509  # noqa: PLC0415 - see the module
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    directory = data_dir / DIRECTORY
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (directory / "key.pem").exists():
        fresh = ec.generate_private_key(ec.SECP256R1())
        write(directory / "key.pem", fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    if not (directory / "id").exists():
        write(directory / "id", str(uuid4()).encode())
    key = load_pem_private_key((directory / "key.pem").read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101 - no other is made
    device = (directory / "id").read_text()
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, device)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    write(directory / "request.pem", request.public_bytes(Encoding.PEM))


def write(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replace *path* in one step, on disk when this returns."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync(path.parent)


def sync(directory: Path) -> None:
    """Return once the names in *directory* are on disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
