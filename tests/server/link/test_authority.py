"""Keys of a coordinator: private, fitting each other, never overwritten; and what is wrong with them is said."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import os
import shutil
import ssl
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import PlanError, StorageError
from server.link import authority
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
from tests.coordinator_places import coordinator_place

NAMES = (CA, CA_KEY, EXECUTOR_SECRET, KEY, SERVER_CERTIFICATE, SERVER_KEY)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@pytest.fixture
def place(tmp_path: Path) -> ServerPlace:
    return coordinator_place(tmp_path / "c", hosts=["coordinator.example.org", "192.0.2.7"])


def texts(place: ServerPlace, when: dt.datetime | None = None) -> str:
    return "\n".join(finding.text for finding in authority.check(place, when or now()))


def test_nothing_is_found_about_new_keys(place: ServerPlace) -> None:
    assert authority.check(place, now()) == []


def test_only_their_owner_may_read_them(place: ServerPlace) -> None:
    assert {stat.S_IMODE(place.own(name).stat().st_mode) for name in NAMES} == {0o600}
    assert stat.S_IMODE(place.own(CA).parent.stat().st_mode) == 0o700


def test_the_certificate_holds_before_openssl(place: ServerPlace) -> None:
    """A client that trusts the authority alone accepts the certificate, also by the strict rules of Python 3.13."""
    client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client.load_verify_locations(place.own(CA))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    server.load_cert_chain(place.own(SERVER_CERTIFICATE), place.own(SERVER_KEY))
    for host in ("coordinator.example.org", "192.0.2.7", "localhost", "127.0.0.1"):
        assert handshake(client, server, host)
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for"):
        handshake(client, server, "elsewhere.example.org")


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> bool:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server, server_hostname=host)
    other = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (one, other):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return one.version() == "TLSv1.3"


def test_keys_are_never_made_twice(place: ServerPlace) -> None:
    before = {name: place.own(name).read_bytes() for name in NAMES}
    with pytest.raises(PlanError, match="exists already"):
        authority.create(place)
    assert {name: place.own(name).read_bytes() for name in NAMES} == before


def test_a_new_certificate_leaves_the_authority(place: ServerPlace) -> None:
    """Holders that trust the authority need not be told."""
    before = {name: place.own(name).read_bytes() for name in NAMES}
    authority.issue(place)
    after = {name: place.own(name).read_bytes() for name in NAMES}
    assert {name for name in NAMES if before[name] != after[name]} == {SERVER_CERTIFICATE, SERVER_KEY}
    assert authority.check(place, now()) == []


def test_a_certificate_does_not_outlive_its_authority(place: ServerPlace) -> None:
    authority.issue(place, days=20 * 365)
    ends = authority.read_certificate(place, SERVER_CERTIFICATE).not_valid_after_utc
    assert ends == authority.read_certificate(place, CA).not_valid_after_utc


@pytest.mark.parametrize(
    ("days", "says", "stops"),
    [(380, "expires on", False), (398, "the certificate expired on", True), (3700, "the authority expired on", True),
     (-2, "set this machine's clock", True)],
)  # fmt: skip
def test_dates_are_looked_at(place: ServerPlace, days: int, says: str, *, stops: bool) -> None:
    found = [finding for finding in authority.check(place, now() + dt.timedelta(days=days)) if says in finding.text]
    assert [finding.stops for finding in found] == [stops] * len(found)
    assert found


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(place: ServerPlace, name: str) -> None:
    place.own(name).unlink()
    assert name in texts(place)
    assert "restore it from the backup" in texts(place)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_file_that_others_may_read_stops(place: ServerPlace, name: str, mode: int) -> None:
    place.own(name).chmod(mode)
    (finding,) = authority.check(place, now())
    assert finding.stops
    assert f"chmod 600 {place.own(name)}" in finding.text


def test_a_folder_that_others_may_open_stops(place: ServerPlace) -> None:
    place.own(CA).parent.chmod(0o755)
    assert f"chmod 700 {place.own(CA).parent}" in texts(place)


def swapped(name: str) -> Callable[[ServerPlace, ServerPlace], object]:
    return lambda place, other: place.own(name).write_bytes(other.own(name).read_bytes())


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (swapped(SERVER_KEY), "is not the key of keys/server.pem"),
        (swapped(CA_KEY), "is not the key of keys/ca.pem"),
        (swapped(CA), "is not of this folder's authority"),
        (lambda place, _: place.own(SERVER_CERTIFICATE).write_text("no certificate"), "holds no certificate"),
        (lambda place, _: place.own(CA).write_bytes(b""), "is empty"),
        (lambda place, _: place.own(SERVER_KEY).write_bytes(place.own(KEY).read_bytes()), "holds no private EC key"),
        (lambda place, _: place.own(CA_KEY).write_bytes(b"\xff" * 300), "holds no private EC key"),
    ],
)
def test_what_does_not_fit_is_found(
    place: ServerPlace, tmp_path: Path, damage: Callable[[ServerPlace, ServerPlace], object], says: str
) -> None:
    damage(place, coordinator_place(tmp_path / "other"))
    assert any(says in finding.text and finding.stops for finding in authority.check(place, now()))


def test_another_host_in_the_settings_is_noticed(place: ServerPlace, tmp_path: Path) -> None:
    other = coordinator_place(tmp_path / "d", keys=False, hosts=["moved.example.org", "192.0.2.7"])
    shutil.copytree(place.folder / "keys", other.folder / "keys")
    assert "not for moved.example.org;" in texts(other)


@pytest.mark.parametrize(
    "host", ["", "a b", "-x.org", "x-.org", "*.example.org", "http://x.org", "x.org:9443", "ä.org"]
)
def test_a_host_that_is_none_is_refused(tmp_path: Path, host: str) -> None:
    place = coordinator_place(tmp_path / "c", keys=False, hosts=[host])
    authority.create(place)
    with pytest.raises(PlanError, match="is no host name and no address"):
        authority.issue(place)
    assert not place.own(SERVER_CERTIFICATE).exists()


@given(content=st.binary(max_size=300))
def test_any_bytes_for_a_certificate_are_a_finding(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = coordinator_place(tmp_path_factory.mktemp("any") / "c")
    place.own(SERVER_CERTIFICATE).write_bytes(content)
    assert all(finding.stops for finding in authority.check(place, now()))
    assert authority.check(place, now())


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    place = coordinator_place(tmp_path / "c", keys=False)
    (place.folder / "keys").write_text("in the way", encoding="utf-8")
    with pytest.raises(StorageError, match="cannot write"):
        authority.create(place)


def test_the_secret_is_never_printed(place: ServerPlace) -> None:
    keys = authority.own_keys(place)
    assert keys.secret.hex() not in repr(keys)
    assert str(keys.secret) not in repr(keys)


def test_a_certificate_is_for_servers_alone(place: ServerPlace) -> None:
    certificate = authority.read_certificate(place, SERVER_CERTIFICATE)
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [usage.dotted_string for usage in usages] == ["1.3.6.1.5.5.7.3.1"]


def test_a_certificate_comes_with_its_key_or_not_at_all(place: ServerPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full after the key was written: the SuperLink still starts with what it had."""
    before = {name: place.own(name).read_bytes() for name in NAMES}
    write = authority._write_private

    def full(part: Path, content: bytes) -> None:
        if part.name == f".{place.own(SERVER_CERTIFICATE).name}.part":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(part, content)

    monkeypatch.setattr(authority, "_write_private", full)
    with pytest.raises(StorageError, match="nothing was put in place"):
        authority.issue(place)
    assert {name: place.own(name).read_bytes() for name in NAMES} == before
    assert authority.check(place, now()) == []
    assert not list(place.own(CA).parent.glob(".*"))


@pytest.mark.parametrize(("name", "wanted"), [(".", 0o700), (SETTINGS_FILE, 0o600), (MEMBERS, 0o600)])
def test_nobody_else_may_change_the_folder(place: ServerPlace, name: str, wanted: int) -> None:
    """Who may write to the folder may put other keys there; who may read it sees no key."""
    path = place.folder / name
    path.touch()
    path.chmod(wanted | 0o022)
    assert f"others may change it; chmod {wanted:o}" in texts(place)
    assert authority.check(place, now())[0].stops
    path.chmod(wanted | 0o044)
    assert authority.check(place, now()) == []


def test_a_wrong_mode_is_said_once(place: ServerPlace) -> None:
    place.own(CA).parent.chmod(0o755)
    assert texts(place).count("chmod 700") == 1
