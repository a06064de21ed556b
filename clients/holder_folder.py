"""A holder's folder: its settings, its two keys, and who may read what.

::

    place = make_holder(Path("north"), settings)       # holder.toml, keys/identity.key.pem, keys/node.key
    place = find_holder(Path("north"))                 # or Path("north/holder.toml")

Where the node runs as another system user (``[holder] node_user``), that user's group may pass through the folder and
read the settings, the node's key and the coordinator's certificate: nothing else. Otherwise everything is the owner's.
"""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import tomllib
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import tomli_w
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from clients.joining import CA_FILE, make_keys, node_key_of
from clients.private_files import make_private_folder, write_private
from clients.settings import (
    APPROVALS,
    COORDINATOR,
    IDENTITY_KEY,
    LEDGERS,
    NODE_KEY,
    ROSTER,
    RUNS,
    HolderFile,
    HolderPlace,
    load_place,
)
from protocol.errors import PlanError, StorageError
from protocol.membership import Invitation

SETTINGS_FILE = "holder.toml"
NODE_FOLDER, SOCKET = "node", "run/agent.sock"
"""Where the node keeps what it needs while it runs, the one folder that it may write to; where the agent listens, in a
folder of its own, which can be given to the node's container without anything else."""
_FOLDERS = ("keys", COORDINATOR, LEDGERS, APPROVALS, RUNS, NODE_FOLDER, "run")
_ABOUT = {
    "holder": "who this is; paths are relative to this file",
    "coordinator": "whom this holder connects to; written by 'migrafed holder join'",
    "node": "the SuperNode, which sees no data",
    "data": "where this holder's rows lie; only the agent may read them",
    "privacy": "what this holder allows, whatever a plan asks for; the agent reads it anew for every message",
}


def make_holder(folder: Path, settings: HolderFile) -> HolderPlace:
    """Make a holder's folder with its settings and keys.

    Raises:
        PlanError: there are settings or keys already, the node's user is unknown, or the folder cannot be written.
    """
    file = folder / SETTINGS_FILE
    place = HolderPlace(settings, file.absolute())
    keys = (place.own(IDENTITY_KEY), place.own(NODE_KEY))
    node_group(settings.holder.node_user)  # checked before anything is made
    try:
        _check_new(file, keys)
        try:
            for own in (place.folder, *map(place.own, _FOLDERS)):
                make_private_folder(own)
                own.chmod(0o700)
            make_private_folder(file.parent)
            make_keys(place)
            write_private(file, settings_text(settings).encode())  # last: with it the place is complete
        except BaseException:
            if not file.exists():  # keys of a holder that never was would be in the way of the next try
                for key in keys:
                    key.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise PlanError(f"{str(folder)[:300]} cannot be made ({error.strerror}); choose another place") from None
    share_with_node(place)
    return place


def _check_new(file: Path, keys: tuple[Path, ...]) -> None:
    """Refuse a folder in which something would be replaced."""
    if file.exists():
        raise PlanError(f"{file} exists, and keys and settings are never replaced; choose a new folder")
    for key in keys:
        if key.exists():
            raise PlanError(
                f"{key} exists and {file} does not: restore the settings from the backup, or, if an 'init' that was "
                f"broken off left this key and nobody got an answer made with it, remove {key.parent} and try again"
            )


def find_holder(path: Path) -> HolderPlace:
    """The holder whose settings are this file, or lie in this folder.

    Raises:
        PlanError: see `clients.settings.load_place`.
    """
    return load_place(settings_file(path))


def settings_file(path: Path) -> Path:
    """The settings in this folder, or this file."""
    try:
        return path / SETTINGS_FILE if path.is_dir() else path
    except OSError:  # not to be looked into, or too long a name: reading it says so
        return path


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


def join_coordinator(place: HolderPlace, invitation: Invitation) -> None:
    """Write ``[coordinator]`` into the settings, in place of the one there; every other line stays as it is.

    Raises:
        PlanError: the settings cannot be changed without touching something else.
        StorageError: they cannot be written.
    """
    section = {"address": invitation.address, "ca": CA_FILE, "key": invitation.coordinator}
    if place.config.coordinator is not None:
        section["ca"] = str(place.config.coordinator.ca)
    elif place.folder != place.file.parent:
        section["ca"] = str(place.own(CA_FILE))
    before = place.file.read_text(encoding="utf-8")
    after = _without(before, "coordinator").rstrip("\n") + (
        f"\n\n# {_ABOUT['coordinator']}\n{tomli_w.dumps({'coordinator': section})}"
    )
    if _values(after) != _values(before) | {"coordinator": section}:
        raise PlanError(
            f"{place.file} is written in a way that [coordinator] cannot be put into; put it in yourself: "
            f"{tomli_w.dumps(section).strip()}"
        )
    try:
        _replace(place.file, after)
    except OSError as error:
        raise StorageError(
            f"cannot write {place.file} ({error.strerror}), so it is as it was; make room or see to its mode, and join "
            "again"
        ) from None
    share_with_node(place)


def keep_roster(place: HolderPlace, path: Path) -> None:
    """Keep a signed roster as it was received.

    Raises:
        PlanError: it cannot be kept.
    """
    try:
        write_private(place.own(ROSTER), path.read_bytes())
    except OSError as error:
        raise PlanError(f"cannot write {place.own(ROSTER)} ({error.strerror}); see to the holder's folder") from None


def share_with_node(place: HolderPlace) -> None:
    """Let the node's own system user, if it has one, read what a node needs and pass through the folders above.

    Raises:
        PlanError: there is no such user, or this one may not give files to its group.
    """
    group = node_group(place.config.holder.node_user)
    if group is None:
        return
    modes = {place.file.parent: 0o710, place.folder: 0o710, place.own(NODE_FOLDER): 0o770, place.file: 0o640}
    modes |= {place.own(name): 0o710 for name in ("keys", COORDINATOR, "run")}
    modes |= {place.own(name): 0o640 for name in (NODE_KEY, CA_FILE)}
    try:
        for path, mode in modes.items():
            if path.exists():
                os.chown(path, -1, group)
                path.chmod(mode)
    except PermissionError:
        raise PlanError(
            f"{place.folder} cannot be shared with the node: this user is not in the group '{group_name(group)}' of "
            f"'{place.config.holder.node_user}'; run: usermod -aG {group_name(group)} USER, and log in anew"
        ) from None


def node_fingerprint(place: HolderPlace) -> str:
    """Fingerprint of the node's key, as ``ssh-keygen -l`` prints it.

    Raises:
        PlanError: see `clients.joining.node_key_of`.
    """
    public = node_key_of(place).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    digest = hashlib.sha256(b64decode(public.split()[1])).digest()
    return "SHA256:" + b64encode(digest).decode().rstrip("=")


def _replace(file: Path, text: str) -> None:
    """Put settings in place whole; mode and group stay."""
    before = file.stat()
    write_private(file, text.encode())
    if before.st_gid != file.stat().st_gid:
        os.chown(file, -1, before.st_gid)
    file.chmod(before.st_mode & 0o777)


def _without(text: str, section: str) -> str:
    """TOML without the lines of one section, and without what is said above it."""
    kept: list[str] = []
    inside = False
    for line in text.splitlines():
        if line.lstrip().startswith("["):
            inside = line.split("#")[0].strip() == f"[{section}]"
            while inside and kept and kept[-1].lstrip().startswith("#"):
                kept.pop()
        if not inside:
            kept.append(line)
    return "\n".join(kept)


def _values(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}
