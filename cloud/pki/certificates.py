"""What the fleet's certificates look like; pure, so every field can be tested without a file.

The profile follows RFC 5280: version 3, random serial numbers, subject and authority key identifiers (key id
only), critical basic constraints and key usage, one extended key usage per leaf.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Literal, get_args
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

BACKDATE = timedelta(minutes=5)
"""How far before *now* a certificate starts to be valid: devices' clocks run late."""

DeviceKey = EllipticCurvePublicKey | RSAPublicKey | Ed25519PublicKey
"""The kinds of public key a device may have."""

_KeyUse = Literal[
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
]

_SERVER = ExtendedKeyUsageOID.SERVER_AUTH
_CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True, slots=True)
class Issuer:
    """A certificate that may sign others, with its private key."""

    certificate: x509.Certificate
    key: EllipticCurvePrivateKey


def root(key: EllipticCurvePrivateKey, *, name: str, now: datetime, lifetime: timedelta) -> x509.Certificate:
    """Return the self-signed certificate everybody trusts."""
    subject = _common_name(name)
    builder = _start(subject, key.public_key(), now=now, end=now + lifetime)
    return _as_authority(builder, path_length=1).issuer_name(subject).sign(key, hashes.SHA256())


def issuing(
    parent: Issuer,
    key: EllipticCurvePrivateKey,
    *,
    name: str,
    usages: Sequence[ObjectIdentifier],
    now: datetime,
    lifetime: timedelta,
) -> x509.Certificate:
    """Return the certificate of an authority under *parent* that signs leaves only, for *usages* only.

    The extended key usage on an authority bounds everything below it in OpenSSL, Go and NSS.
    """
    end = min(now + lifetime, parent.certificate.not_valid_after_utc)
    builder = _start(_common_name(name), key.public_key(), now=now, end=end)
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return _sign(_as_authority(builder, path_length=0), parent)


def anchor(issuer: Issuer) -> x509.Certificate:
    """Return a self-signed twin of *issuer*: same key, same subject, same dates, trusted on its own.

    OpenSSL ends a chain only at a self-signed certificate. A listener that must trust exactly one of two
    issuing authorities is given that authority's twin instead of the root, which would let both in.
    """
    own = issuer.certificate
    builder = _start(
        own.subject,
        issuer.key.public_key(),
        now=own.not_valid_before_utc + BACKDATE,
        end=own.not_valid_after_utc,
    )
    usage = own.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    builder = builder.add_extension(usage.value, critical=usage.critical)
    builder = _as_authority(builder, path_length=0).issuer_name(own.subject)
    return builder.sign(issuer.key, hashes.SHA256())


def server(
    issuer: Issuer,
    key: EllipticCurvePublicKey,
    *,
    names: Sequence[str],
    addresses: Sequence[IPv4Address | IPv6Address],
    now: datetime,
    lifetime: timedelta,
) -> x509.Certificate:
    """Return a certificate for a TLS server reached by *names* and *addresses*; useless to a client."""
    reached = [*(x509.DNSName(name) for name in names), *(x509.IPAddress(each) for each in addresses)]
    subject = _common_name(names[0] if names else str(addresses[0]))
    return _leaf(issuer, subject, key, alternative=reached, usage=_SERVER, now=now, lifetime=lifetime)


def service(
    issuer: Issuer, key: EllipticCurvePublicKey, *, name: str, now: datetime, lifetime: timedelta
) -> x509.Certificate:
    """Return a certificate that lets a service or a person connect as *name*; useless to a server."""
    alternative = [x509.UniformResourceIdentifier(f"urn:fleetline:service:{name}")]
    return _leaf(
        issuer, _common_name(name), key, alternative=alternative, usage=_CLIENT, now=now, lifetime=lifetime
    )


def device(
    issuer: Issuer, key: DeviceKey, *, device_id: UUID, now: datetime, lifetime: timedelta
) -> x509.Certificate:
    """Return a device's certificate: its id is the CN, which the broker reads, and a URI (RFC 9562)."""
    return _leaf(
        issuer,
        _common_name(str(device_id)),
        key,
        alternative=[device_name(device_id)],
        usage=_CLIENT,
        now=now,
        lifetime=lifetime,
    )


def device_name(device_id: UUID) -> x509.UniformResourceIdentifier:
    """Return the subject alternative name of a device."""
    return x509.UniformResourceIdentifier(device_id.urn)


def _leaf(
    issuer: Issuer,
    subject: x509.Name,
    key: DeviceKey,
    *,
    alternative: Sequence[x509.GeneralName],
    usage: ObjectIdentifier,
    now: datetime,
    lifetime: timedelta,
) -> x509.Certificate:
    end = min(now + lifetime, issuer.certificate.not_valid_after_utc)
    builder = (
        _start(subject, key, now=now, end=end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
    )
    return _sign(builder, issuer)


def _start(subject: x509.Name, key: DeviceKey, *, now: datetime, end: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _as_authority(builder: x509.CertificateBuilder, *, path_length: int) -> x509.CertificateBuilder:
    return builder.add_extension(
        x509.BasicConstraints(ca=True, path_length=path_length), critical=True
    ).add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)


def _sign(builder: x509.CertificateBuilder, issuer: Issuer) -> x509.Certificate:
    identifier = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    return (
        builder.add_extension(authority, critical=False)
        .issuer_name(issuer.certificate.subject)
        .sign(issuer.key, hashes.SHA256())
    )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _key_usage(*granted: _KeyUse) -> x509.KeyUsage:
    return x509.KeyUsage(**{use: use in granted for use in get_args(_KeyUse)})
