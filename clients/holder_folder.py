"""A holder's folder: its settings, its two keys, and who may read what.

::

    place = found_holder(Path("north"), settings)      # holder.toml, keys/identity.key.pem, keys/node.key
    place = find_holder(Path("north"))                 # or Path("north/holder.toml")

Where the node runs as another system user (``[holder] node_user``), that user's group may pass through the folder and
read the settings, the node's key and the coordinator's certificate: nothing else. Otherwise everything is the owner's.
"""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import stat
from base64 import b64decode, b64encode
from pathlib import Path

import tomli_w
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from clients.private_files import make_private_folder, write_private
from clients.settings import (
    APPROVALS,
    COORDINATOR,
    IDENTITY_KEY,
    LEDGERS,
    NODE_KEY,
    RUNS,
    HolderFile,
    HolderPlace,
    load_place,
)
from privacy.secure_aggregation.roster import Identity
from protocol.errors import PlanError

SETTINGS_FILE = "holder.toml"
NODE_FOLDER = "node"
"""Where the node keeps what it needs while it runs; the one folder that it may write to."""
_ABOUT = {
    "holder": "who this is; paths are relative to this file",
    "coordinator": "whom this holder connects to; written by 'migrafed holder join'",
    "node": "the SuperNode, which sees no data",
    "data": "where this holder's rows lie; only the agent may read them",
    "privacy": "what this holder allows, whatever a plan asks for; the agent reads it anew for every message",
}


def found_holder(folder: Path, settings: HolderFile) -> HolderPlace:
    """Make a holder's folder with its settings and keys.

    Raises:
        PlanError: there are settings or keys already, the node's user is unknown, or the folder cannot be written.
    """
    file = folder / SETTINGS_FILE
    place = HolderPlace(settings, file.absolute())
    for path in (file, place.own(IDENTITY_KEY), place.own(NODE_KEY)):
        if path.exists():
            raise PlanError(f"{path} exists, and keys and settings are never replaced; choose a new folder")
    group = node_group(settings.holder.node_user)
    try:
        _make_folders(place, group)
        write_private(place.own(IDENTITY_KEY), _new_identity())
        write_private(place.own(NODE_KEY), _new_node_key())
        write_settings(place)  # last: with it the place is complete
        for shown in (place.own(NODE_KEY), file):
            _share(shown, group, 0o640)
    except PermissionError as error:
        raise PlanError(
            f"{error.filename or folder} cannot be made or given to the node's group ({error.strerror}); "
            "run this as a user who may write there and is in the group of the node's user"
        ) from None
    except OSError as error:
        raise PlanError(f"{folder} cannot be made ({error.strerror}); choose another place") from None
    return place


def find_holder(path: Path) -> HolderPlace:
    """The holder whose settings are this file, or lie in this folder.

    Raises:
        PlanError: see `clients.settings.load_place`.
    """
    return load_place(path / SETTINGS_FILE if path.is_dir() else path)


def write_settings(place: HolderPlace) -> None:
    """Put the settings in place whole, with what each section is for; mode and group of the file stay."""
    before = place.file.stat() if place.file.exists() else None
    write_private(place.file, settings_text(place.config).encode())
    if before is not None:
        if before.st_gid != place.file.stat().st_gid:
            os.chown(place.file, -1, before.st_gid)
        place.file.chmod(before.st_mode & 0o777)


def settings_text(settings: HolderFile) -> str:
    """The TOML of a holder's settings; what is as by default is left out."""
    values = settings.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    parts = []
    for section, about in _ABOUT.items():
        if section in values:
            parts.append(f"# {about}\n{tomli_w.dumps({section: values[section]})}")
    return "\n".join(parts)


def node_group(user: str | None) -> int | None:
    """Group of the node's system user; None where the node runs as the agent's own.

    Raises:
        PlanError: there is no such user.
    """
    if user is None:
        return None
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        raise PlanError(
            f"[holder] node_user = '{user}' is no user of this system; make it first (useradd --system {user})"
        ) from None
    return None if found.pw_uid == os.geteuid() else found.pw_gid


def group_name(group: int) -> str:
    """Name of a group, for messages."""
    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)


def identity_of(place: HolderPlace) -> Identity:
    """The holder's name and signing key.

    Raises:
        PlanError: the file is missing, holds no Ed25519 key, or others than its owner may read it.
    """
    path = place.own(IDENTITY_KEY)
    try:
        mode, content = stat.S_IMODE(path.stat().st_mode), path.read_bytes()
    except OSError as error:
        raise PlanError(f"cannot read the holder's key {path} ({error.strerror}); restore it from a backup") from None
    if mode & 0o077:
        raise PlanError(
            f"{path} has mode {mode:04o}, so others than its owner can sign for '{place.name}'; set 0600 (chmod 600 "
            f"{path}), and make a new key if somebody else may have read it"
        )
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise PlanError(f"{path} holds no Ed25519 key; restore it from a backup")
    return Identity(place.name, key)


def node_public_key(path: Path) -> ec.EllipticCurvePublicKey:
    """The public half of the node's key.

    Raises:
        PlanError: the file is missing, or holds no elliptic-curve key in OpenSSH form.
    """
    try:
        key = load_ssh_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise PlanError(f"cannot read the node's key {path} ({error.strerror}); restore it from a backup") from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PlanError(f"{path} holds no elliptic-curve key in OpenSSH form; restore it from a backup")
    return key.public_key()


def node_fingerprint(path: Path) -> str:
    """Fingerprint of the node's key, as ``ssh-keygen -l`` prints it.

    Raises:
        PlanError: see `node_public_key`.
    """
    public = node_public_key(path).public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    digest = hashlib.sha256(b64decode(public.split()[1])).digest()
    return "SHA256:" + b64encode(digest).decode().rstrip("=")


def _make_folders(place: HolderPlace, group: int | None) -> None:
    passed = (place.folder, place.own(IDENTITY_KEY).parent, place.own(COORDINATOR), place.own(NODE_FOLDER))
    for folder in (*passed, *map(place.own, (LEDGERS, APPROVALS, RUNS))):
        make_private_folder(folder)
        folder.chmod(0o700)
    make_private_folder(place.file.parent)
    for folder in (place.file.parent, *passed):
        _share(folder, group, 0o710)
    _share(place.own(NODE_FOLDER), group, 0o770)


def _share(path: Path, group: int | None, mode: int) -> None:
    """Let the node's group use a file or folder, if the node runs as somebody else."""
    if group is not None:
        os.chown(path, -1, group)
        path.chmod(mode)


def _new_identity() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _new_node_key() -> bytes:
    """As `flower-supernode --auth-supernode-private-key` reads it."""
    return ec.generate_private_key(ec.SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
