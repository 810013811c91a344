"""What the authority signs, what it refuses and how it is kept."""

import base64
import shutil
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given
from hypothesis import strategies as st

from cloud.pki.authority import Authority
from cloud.pki.enrolment import identity_of
from cloud.pki.requests import accepted_key
from schemas.errors import FleetError

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DEVICE = UUID("6b1f0f5e-1d0a-4c53-9a55-6f0d4f2f7a01")
OTHER = UUID("6b1f0f5e-1d0a-4c53-9a55-6f0d4f2f7a02")

SigningKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("fleet") / "pki", now=NOON)


def p256() -> SigningKey:
    return ec.generate_private_key(ec.SECP256R1())


def p384() -> SigningKey:
    return ec.generate_private_key(ec.SECP384R1())


def ed() -> SigningKey:
    return ed25519.Ed25519PrivateKey.generate()


def rsa_3072() -> SigningKey:
    return rsa.generate_private_key(65537, 3072)


def rsa_2048() -> SigningKey:
    return rsa.generate_private_key(65537, 2048)


def p224() -> SigningKey:
    return ec.generate_private_key(ec.SECP224R1())


def p521() -> SigningKey:
    return ec.generate_private_key(ec.SECP521R1())


def request(
    *names: str, key: SigningKey | None = None, extensions: tuple[x509.ExtensionType, ...] = ()
) -> bytes:
    signer = key or p256()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(signer, digest).public_bytes(Encoding.PEM)


def refusal(csr: bytes) -> str:
    with pytest.raises(FleetError) as refused:
        accepted_key(csr, DEVICE)
    return refused.value.code


def chain(pem: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem)


def usages(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def trusting(*anchors: x509.Certificate, now: datetime = NOON) -> PolicyBuilder:
    return PolicyBuilder().store(Store(list(anchors))).time(now)


@pytest.mark.parametrize("make", [p256, p384, ed, rsa_3072])
def test_a_device_gets_a_certificate_for_its_own_strong_key(
    fleet: Authority, make: Callable[[], SigningKey]
) -> None:
    key = make()

    leaf, issuing = chain(fleet.sign_device(request(str(DEVICE), key=key), DEVICE, now=NOON))

    assert leaf.public_key() == key.public_key()
    assert leaf.subject.rfc4514_string() == f"CN={DEVICE}"
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"urn:uuid:{DEVICE}"]
    assert usages(leaf) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    trusting(fleet.root).build_client_verifier().verify(leaf, [issuing])


@pytest.mark.parametrize("make", [rsa_2048, p224, p521])
def test_a_key_outside_the_list_is_refused(make: Callable[[], SigningKey]) -> None:
    assert refusal(request(str(DEVICE), key=make())) == "csr.weak_key"


@pytest.mark.parametrize(
    "names", [(), (str(OTHER),), (str(DEVICE), str(DEVICE)), (f"{DEVICE}/up",), (str(DEVICE).upper(),)]
)
def test_a_request_for_another_name_is_refused(names: tuple[str, ...]) -> None:
    assert refusal(request(*names)) == "csr.subject_mismatch"


def test_a_request_may_name_the_device_again_and_nothing_else() -> None:
    own = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(DEVICE.urn)])
    foreign = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(OTHER.urn)])
    authority = x509.BasicConstraints(ca=True, path_length=None)
    server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])

    accepted_key(request(str(DEVICE), extensions=(own,)), DEVICE)
    for wanted in (foreign, authority, server):
        assert refusal(request(str(DEVICE), extensions=(wanted,))) == "csr.extension_not_allowed"


def test_a_request_signed_by_another_key_is_refused() -> None:
    honest = x509.load_pem_x509_csr(request(str(DEVICE)))
    altered = bytearray(honest.public_bytes(Encoding.DER))
    altered[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(altered))

    assert refusal(forged.public_bytes(Encoding.PEM)) == "csr.invalid"


@given(st.binary(max_size=200))
def test_junk_is_refused_and_nothing_else_happens(junk: bytes) -> None:
    assert refusal(junk) == "csr.invalid"


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=255))
def test_a_damaged_request_raises_nothing_but_a_refusal(position: int, value: int) -> None:
    der = bytearray(x509.load_pem_x509_csr(SAMPLE).public_bytes(Encoding.DER))
    der[position % len(der)] = value
    body = _pem_of(bytes(der))
    with suppress(FleetError):
        accepted_key(body, DEVICE)
    with suppress(FleetError):
        identity_of(body.decode())


def test_a_request_of_an_unknown_version_is_refused() -> None:
    der = x509.load_pem_x509_csr(SAMPLE).public_bytes(Encoding.DER)
    newer = _pem_of(der.replace(b"\x02\x01\x00", b"\x02\x01\x01", 1))

    assert refusal(newer) == "csr.invalid"
    with pytest.raises(FleetError, match=r"csr\.invalid"):
        identity_of(newer.decode())


SAMPLE = request(str(DEVICE))


def _pem_of(der: bytes) -> bytes:
    lines = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE REQUEST-----\n" + lines + b"-----END CERTIFICATE REQUEST-----\n"


def test_a_server_is_verified_by_its_names_against_the_root(fleet: Authority) -> None:
    issued = fleet.issue_server(names=["broker.example"], addresses=[ip_address("::1")], now=NOON)
    leaf, issuing = chain(issued.chain)

    assert usages(leaf) == [ExtendedKeyUsageOID.SERVER_AUTH]
    policy = trusting(fleet.root)
    policy.build_server_verifier(x509.DNSName("broker.example")).verify(leaf, [issuing])
    policy.build_server_verifier(x509.IPAddress(ip_address("::1"))).verify(leaf, [issuing])
    with pytest.raises(VerificationError):
        policy.build_server_verifier(x509.DNSName("other.example")).verify(leaf, [issuing])
    with pytest.raises(VerificationError):
        policy.build_client_verifier().verify(leaf, [issuing])


def test_a_client_cannot_pose_as_a_server(fleet: Authority) -> None:
    leaf, issuing = chain(fleet.issue_client("operator", now=NOON).chain)

    trusting(fleet.root).build_client_verifier().verify(leaf, [issuing])
    assert usages(leaf) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_each_anchor_trusts_its_own_kind_only(fleet: Authority) -> None:
    device = chain(fleet.sign_device(request(str(DEVICE)), DEVICE, now=NOON))
    service = chain(fleet.issue_client("operator", now=NOON).chain)
    (devices,) = chain(fleet.device_anchor.read_bytes())
    (services,) = chain(fleet.service_anchor.read_bytes())

    trusting(devices).build_client_verifier().verify(device[0], device[1:])
    trusting(services).build_client_verifier().verify(service[0], service[1:])
    for anchor, stranger in ((devices, service), (services, device)):
        with pytest.raises(VerificationError):
            trusting(anchor).build_client_verifier().verify(stranger[0], stranger[1:])


def test_an_anchor_is_the_self_signed_twin_of_its_authority(fleet: Authority) -> None:
    (twin,) = chain(fleet.device_anchor.read_bytes())
    own = fleet.devices.certificate

    assert (twin.subject, twin.public_key()) == (own.subject, own.public_key())
    assert twin.issuer == twin.subject
    assert own.issuer == fleet.root.subject
    assert twin.not_valid_after_utc == own.not_valid_after_utc
    twin.verify_directly_issued_by(twin)


def test_the_device_authority_can_never_vouch_for_a_server(fleet: Authority) -> None:
    assert usages(fleet.devices.certificate) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_validity_starts_five_minutes_ago_and_ends_with_the_lifetime(fleet: Authority) -> None:
    signed = fleet.sign_device(request(str(DEVICE)), DEVICE, now=NOON, lifetime=timedelta(days=30))
    leaf = chain(signed)[0]

    assert leaf.not_valid_before_utc == NOON - timedelta(minutes=5)
    assert leaf.not_valid_after_utc == NOON + timedelta(days=30)


def test_no_certificate_outlives_the_authority_that_signed_it(fleet: Authority) -> None:
    century = timedelta(days=36500)
    leaf = chain(fleet.issue_client("operator", now=NOON, lifetime=century).chain)[0]

    assert leaf.not_valid_after_utc == fleet.services.certificate.not_valid_after_utc


@pytest.mark.parametrize(
    "name", ["", "#", "a/b", "a+", "Operator", "a\n", "x" * 65, "-a", str(DEVICE), DEVICE.hex]
)
def test_a_service_cannot_be_named_like_a_device_or_a_pattern(fleet: Authority, name: str) -> None:
    with pytest.raises(FleetError) as refused:
        fleet.issue_client(name, now=NOON)

    assert refused.value.code == "csr.subject_mismatch"


def test_the_authority_is_the_same_after_it_is_opened_again(tmp_path: Path) -> None:
    first = Authority.open(tmp_path / "pki", now=NOON)
    again = Authority.open(tmp_path / "pki", now=NOON + timedelta(days=1))

    assert again.root == first.root
    assert again.devices.certificate == first.devices.certificate


def test_the_roots_key_may_be_taken_away(tmp_path: Path) -> None:
    Authority.create(tmp_path / "pki", now=NOON)
    shutil.rmtree(tmp_path / "pki" / "root")

    fleet = Authority.load(tmp_path / "pki")

    assert chain(fleet.issue_client("operator", now=NOON).chain)


def test_no_one_else_reads_the_keys(tmp_path: Path) -> None:
    Authority.create(tmp_path / "pki", now=NOON)

    modes = {
        str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path / "pki").rglob("*")
        if path.is_dir() or path.suffix == ".key"
    }

    assert modes == {
        "pki/root": 0o700,
        "pki/issuing": 0o700,
        "pki/anchors": 0o700,
        "pki/root/root.key": 0o600,
        "pki/issuing/device.key": 0o600,
        "pki/issuing/service.key": 0o600,
    }
    assert stat.S_IMODE((tmp_path / "pki").stat().st_mode) == 0o700


def test_an_authority_never_replaces_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki" / "something").write_text("mine")

    with pytest.raises(FileExistsError):
        Authority.open(tmp_path / "pki", now=NOON)

    assert [path.name for path in tmp_path.rglob("*")] == ["pki", "something"]


def test_saved_credentials_belong_together_and_the_key_is_private(fleet: Authority, tmp_path: Path) -> None:
    issued = fleet.issue_client("operator", now=NOON)

    issued.save(key=tmp_path / "key", chain=tmp_path / "chain")

    key = load_pem_private_key((tmp_path / "key").read_bytes(), password=None)
    assert chain((tmp_path / "chain").read_bytes())[0].public_key() == key.public_key()
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert "PRIVATE" not in repr(issued)


def test_processes_that_open_it_at_once_make_one_authority(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: Authority.open(tmp_path / "pki", now=NOON), range(8)))

    assert len({each.root for each in opened}) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["pki"]
