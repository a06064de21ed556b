"""The coordinator's certificate authority, its certificate, its signing key and the secret of its own processes.

Everything private lies in ``keys``, which only the coordinator's user may open (0700, files 0600). Holders get the
authority's certificate with their invitation and trust nothing else, so a certificate can be replaced at any time
without asking them; the authority itself lasts ten years.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocol.errors import PlanError, StorageError
from server.settings import (
    CA,
    CA_KEY,
    EXECUTOR_SECRET,
    KEY,
    MEMBERS,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    SETTINGS_FILE,
    ServerPlace,
)

AUTHORITY_DAYS, CERTIFICATE_DAYS = 3653, 397
CLOCKS = dt.timedelta(days=1)
"""A certificate is valid from so long ago on: clocks of other machines."""
SECRET_BYTES = 32
SOON = dt.timedelta(days=30)
"""A certificate that ends within it is spoken of."""
_RENEW = "issue another with 'migrafed server certificate'"
_ALL = (CA_KEY, CA, KEY, EXECUTOR_SECRET, SERVER_KEY, SERVER_CERTIFICATE)
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\Z")


def create(place: ServerPlace) -> None:
    """Make the authority, the coordinator's signing key and the secret of its processes.

    Raises:
        PlanError: one of them exists already: holders that trust it would be lost.
        StorageError: the disk refuses.
    """
    for name in (KEY, CA_KEY, CA, EXECUTOR_SECRET):
        if place.own(name).exists():
            raise PlanError(f"{place.own(name)} exists already; keep it: holders trust it. Choose another folder")
    authority = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{place.config.server.name} authority")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        _builder(name, name, authority.public_key(), now, now + dt.timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA384())
    )
    _keep(place, {
        CA_KEY: _private_bytes(authority),
        CA: certificate.public_bytes(Encoding.PEM),
        KEY: _private_bytes(ed25519.Ed25519PrivateKey.generate()),
        EXECUTOR_SECRET: secrets.token_bytes(SECRET_BYTES),
    })  # fmt: skip


def issue(place: ServerPlace, days: int = CERTIFICATE_DAYS) -> None:
    """Issue a new certificate, with a new key, for the hosts of ``server.toml``; the SuperLink takes it when it starts.

    Raises:
        PlanError: a host is no name and no address, or the authority is missing or damaged.
        StorageError: the disk refuses; the certificate and the key that were there are as they were.
    """
    authority, authority_key = read_certificate(place, CA), _key(place, CA_KEY)
    server = place.config.server
    hosts = [_general_name(host) for host in dict.fromkeys((*server.hosts, "localhost", "127.0.0.1"))]
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, server.name)])
    now = dt.datetime.now(dt.UTC)
    ends = min(now + dt.timedelta(days=days), authority.not_valid_after_utc)
    certificate = (
        _builder(name, authority.subject, key.public_key(), now, ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA384())
    )
    _keep(place, {SERVER_KEY: _private_bytes(key), SERVER_CERTIFICATE: certificate.public_bytes(Encoding.PEM)})


@dataclass(frozen=True)
class Finding:
    """Something about keys and certificates that an operator should know.

    Args:
        text: What, and the way out.
        stops: Whether the SuperLink cannot, or must not, start like this.
    """

    text: str
    stops: bool


def check(place: ServerPlace, now: dt.datetime) -> list[Finding]:
    """Look over keys and certificates: there, private, fitting each other, valid now and for the hosts of the settings.

    Args:
        place: The coordinator's folder.
        now: With its time zone.
    """
    problems = [*_open_to_others(place), *(text for name in _ALL for text in _file_problems(place.own(name)))]
    found = [Finding(text, stops=True) for text in dict.fromkeys(problems)]
    if found:
        return found
    try:
        authority, certificate = read_certificate(place, CA), read_certificate(place, SERVER_CERTIFICATE)
        fits = _key(place, SERVER_KEY).public_key() == certificate.public_key()
        own = _key(place, CA_KEY).public_key() == authority.public_key()
    except PlanError as error:
        return [Finding(str(error), stops=True)]
    if not own:
        found.append(Finding(f"{CA_KEY} is not the key of {CA}; restore both from one backup", stops=True))
    if not fits:
        found.append(Finding(f"{SERVER_KEY} is not the key of {SERVER_CERTIFICATE}; {_RENEW}", stops=True))
    if not _issued_by(certificate, authority):
        found.append(Finding(f"{SERVER_CERTIFICATE} is not of this folder's authority; {_RENEW}", stops=True))
    uncovered = [host for host in (*place.config.server.hosts, "localhost") if not _covers(certificate, host)]
    if uncovered:
        found.append(Finding(f"the certificate is not for {', '.join(uncovered)}; {_RENEW}", stops=True))
    found += _dates("the certificate", certificate, now, _RENEW)
    found += _dates("the authority", authority, now, "make another folder and invite all holders again")
    return found


def _open_to_others(place: ServerPlace) -> Iterator[str]:
    """Who may write to the folder may put other keys there, and who may write to the book may become a member."""
    for path, wanted in ((place.folder, 0o700), (place.own(SETTINGS_FILE), 0o600), (place.own(MEMBERS), 0o600)):
        try:
            mode = path.stat().st_mode & 0o777
        except OSError:
            continue
        if mode & 0o022:
            yield f"{path} has mode {mode:04o}, others may change it; chmod {wanted:o} {path}"


def _file_problems(path: Path) -> Iterator[str]:
    try:
        mode, size = path.stat().st_mode, path.stat().st_size
        around = path.parent.stat().st_mode
    except OSError as error:
        yield f"{path}: {error.strerror}; 'migrafed server init' makes it, or restore it from the backup"
        return
    if not size:
        yield f"{path} is empty; restore it from the backup of this folder"
    if around & 0o077:
        yield f"{path.parent} has mode {around & 0o777:04o}, others may open it; chmod 700 {path.parent}"
    if mode & 0o077:
        yield f"{path} has mode {mode & 0o777:04o}, others may read it; chmod 600 {path}"


def _dates(what: str, certificate: x509.Certificate, now: dt.datetime, way_out: str) -> Iterator[Finding]:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begins:
        yield Finding(f"{what} is valid from {begins:%Y-%m-%d} on only; set this machine's clock", stops=True)
    elif now >= ends:
        yield Finding(f"{what} expired on {ends:%Y-%m-%d}; {way_out}", stops=True)
    elif ends - now < SOON:
        yield Finding(f"{what} expires on {ends:%Y-%m-%d}; {way_out} before", stops=False)


def _issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _covers(certificate: x509.Certificate, host: str) -> bool:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return _general_name(host) in list(names)


@dataclass(frozen=True)
class Keys:
    """What our own processes show each other.

    Args:
        authority: The authority's certificate, PEM.
        secret: Known to processes of the coordinator's user.
    """

    authority: bytes
    secret: bytes

    def __repr__(self) -> str:
        return "Keys(...)"


def own_keys(place: ServerPlace) -> Keys:
    """Read what a process of the coordinator needs to speak to the SuperLink's control port.

    Raises:
        PlanError: it is missing, or cannot be read by this user.
    """
    return Keys(read_own(place, CA), read_own(place, EXECUTOR_SECRET))


def read_own(place: ServerPlace, name: str) -> bytes:
    """Content of a key file.

    Raises:
        PlanError: it is missing, empty or cannot be read.
    """
    path = place.own(name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PlanError(
            f"cannot read {path} ({error.strerror}); 'migrafed server init' makes it, for its own user only"
        ) from None
    if not content:
        raise PlanError(f"{path} is empty; restore it from the backup of this folder")
    return content


def read_certificate(place: ServerPlace, name: str) -> x509.Certificate:
    """A certificate of this folder.

    Raises:
        PlanError: it is missing or no certificate.
    """
    content = read_own(place, name)
    try:
        return x509.load_pem_x509_certificate(content)
    except ValueError:
        raise PlanError(f"{place.own(name)} holds no certificate; restore it from the backup of this folder") from None


def _key(place: ServerPlace, name: str) -> ec.EllipticCurvePrivateKey:
    content = read_own(place, name)
    try:
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PlanError(f"{place.own(name)} holds no private EC key; restore it from the backup of this folder")
    return key


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not _HOST_NAME.match(host):
        raise PlanError(f"[server] hosts: {host!r} is no host name and no address, such as 'coordinator.example.org'")
    return x509.DNSName(host)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: dt.datetime, ends: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, ends) - CLOCKS)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _private_bytes(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _keep(place: ServerPlace, contents: Mapping[str, bytes]) -> None:
    """Put files in place that belong together: all of them are on the disk before the first gets its name."""
    parts = {place.own(name): place.own(name).with_name(f".{place.own(name).name}.part") for name in contents}
    path = place.folder
    try:
        try:
            for (path, part), content in zip(parts.items(), contents.values(), strict=True):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _write_private(part, content)
            for path, part in parts.items():
                part.replace(path)
        finally:
            for part in parts.values():
                part.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {path} ({error.strerror}); nothing was put in place") from None


def _write_private(part: Path, content: bytes) -> None:
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
